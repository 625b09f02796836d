"""Label images: every pixel says which object it is of."""

from __future__ import annotations

import cv2
import numpy as np

from maskrcnn_ext.inference.outputs.scene import Scene, png


def labels(scene: Scene) -> dict[str, bytes]:
    """Returns 0 outside of objects, and the number of an object in it: 1 for the highest score, which is on top where objects overlap.

    The numbers are those of the GeoJSON's features, crops and cut-outs; one that others hide altogether is not there. It is a PNG of 16
    bits, or where the numbers need them a TIFF of 32.
    """
    numbers = np.zeros(scene.found.image_size, np.uint16 if len(scene.found) < 2**16 else np.int32)
    regions = list(scene.masks())
    for number in range(len(regions), 0, -1):
        regions[number - 1].of(numbers)[regions[number - 1].mask > 0] = number
    if numbers.dtype == np.uint16:
        return {f"{scene.item.name}.png": png(numbers)}
    return {f"{scene.item.name}.tif": cv2.imencode(".tif", numbers)[1].tobytes()}
