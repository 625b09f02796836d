"""What predictions can be saved as, one kind a file. Each is a pure function of a scene; the job writes the files.

The module ``<kind>`` has ``<kind>(scene: Scene) -> dict[str, bytes]``: contents by file name, which begins with ``scene.item.name``.
Kinds that draw take the colours and the order from the scores: the highest on top.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.outputs.scene import Scene

OUTPUTS = {
    "overlays": "the image with masks, boxes, labels and keypoints on it, PNG",
    "splash": "the image in grey but for the objects, PNG",
    "crops": "the box of every object, PNG",
    "cutouts": "the box of every object, transparent outside of its mask, PNG",
    "polygons": "outlines with holes, GeoJSON; in map coordinates where the image is georeferenced",
    "labels": "0 outside, then an object's number from 1 (the highest score first), 16-bit PNG",
}


class Output(Protocol):
    def __call__(self, scene: Scene) -> dict[str, bytes]: ...


def find_output(kind: str) -> Output:
    """Returns the function that makes a kind of output.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in OUTPUTS:
        raise InputError(f"nothing is saved as {kind!r}, expected some of {', '.join(OUTPUTS)}")
    output: Output = getattr(import_module(f"{__name__}.{kind}"), kind)
    return output
