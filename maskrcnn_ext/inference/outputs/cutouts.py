"""The objects, each cut out along its mask."""

from __future__ import annotations

import numpy as np

from maskrcnn_ext.inference.outputs.crops import object_names
from maskrcnn_ext.inference.outputs.scene import Scene, png


def cutouts(scene: Scene) -> dict[str, bytes]:
    """Returns a picture an object as :func:`maskrcnn_ext.inference.outputs.crops.crops` does, transparent outside of its mask."""
    regions = zip(object_names(scene), scene.box_regions(), strict=True)
    return {
        name: png(np.dstack([region.of(scene.image), region.mask * 255]))
        for name, region in regions
        if region.mask.size
    }
