"""Colour splash: everything but the objects in grey."""

from __future__ import annotations

import cv2

from maskrcnn_ext.inference.outputs.scene import Scene, png


def splash(scene: Scene) -> dict[str, bytes]:
    """Returns the picture."""
    grey = cv2.cvtColor(cv2.cvtColor(scene.image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    for region in scene.masks():
        inside = region.mask > 0
        region.of(grey)[inside] = region.of(scene.image)[inside]
    return {f"{scene.item.name}.png": png(grey)}
