"""An image of two tiles, and annotations on it."""

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode

from maskrcnn_ext.ops.tile_grid import TileGrid

HEIGHT, WIDTH = 100, 180
# Two tiles, which share 20 columns from 80 on.
GRID = TileGrid(WIDTH, HEIGHT, 100, 0.2)


def polygon(x0, y0, x1, y1):
    return [float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]


def annotation(x0, y0, x1, y1, **rest):
    return {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
        "segmentation": [polygon(x0, y0, x1, y1)],
        **rest,
    }


def rle_of(mask):
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {**rle, "counts": rle["counts"].decode()}


def mask_of(segmentation, height=100, width=100):
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation)
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(segmentation, height, width)))
