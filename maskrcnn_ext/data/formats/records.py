"""The plain records that every format gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as mask_util


@dataclass(slots=True)
class Annotation:
    """One object.

    Attributes:
        category: index into the data set's class names, from 0.
        box: (x0, y0, x1, y1) in pixels of the image, x1 and y1 exclusive.
        segmentation: polygons [[x, y, x, y, ...], ...] in sub-pixel coordinates, or a compressed COCO RLE whose counts are text.
    """

    category: int
    box: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, Any]


@dataclass(slots=True)
class ImageRecord:
    """One image and its objects. Sizes are in pixels; an image without objects has an empty list."""

    file_name: str
    image_id: str
    height: int
    width: int
    annotations: list[Annotation] = field(default_factory=list)


def box_of_polygons(polygons: list[list[float]], height: int, width: int) -> tuple[float, float, float, float]:
    """Returns the box (x0, y0, x1, y1) of what lies of polygons inside an image, in sub-pixel coordinates.

    Hand-drawn outlines have spikes that enclose nothing: an edge of the box is at most a pixel from the rasterised mask's.
    """
    xs = [min(max(x, 0.0), width) for polygon in polygons for x in polygon[0::2]]
    ys = [min(max(y, 0.0), height) for polygon in polygons for y in polygon[1::2]]
    corners = np.array([min(xs), min(ys), max(xs), max(ys)])
    mask = mask_util.merge(mask_util.frPyObjects(polygons, height, width))
    if mask_util.area(mask):
        x, y, w, h = mask_util.toBbox(mask)
        raster = np.array([x, y, x + w, y + h])
        corners = np.clip(corners, raster - 1, raster + 1)
    x0, y0, x1, y1 = (float(value) for value in corners)
    return x0, y0, x1, y1
