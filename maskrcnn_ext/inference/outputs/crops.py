"""The objects, each cut out along its box."""

from __future__ import annotations

from maskrcnn_ext.inference.outputs.scene import Scene, png


def crops(scene: Scene) -> dict[str, bytes]:
    """Returns a picture an object, named by its number (the highest score first), class and score."""
    regions = zip(object_names(scene), scene.box_regions(), strict=True)
    return {name: png(region.of(scene.image)) for name, region in regions if region.mask.size}


def object_names(scene: Scene) -> list[str]:
    """File names for the objects."""
    digits = max(3, len(str(len(scene.found))))
    names = ["".join(letter if letter.isalnum() else "_" for letter in name) for name in scene.names]
    return [
        f"{scene.item.name}/{number:0{digits}}_{name}_{score:.2f}.png"
        for number, (name, score) in enumerate(zip(names, scene.found.scores.tolist(), strict=True), start=1)
    ]
