"""The plain records that every format gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskrcnn_ext.ops.rle import encode_mask, rle_box, segmentation_to_rle


@dataclass(slots=True)
class Annotation:
    """One object.

    Attributes:
        category: index into the data set's class names, from 0.
        box: (x0, y0, x1, y1) in pixels of the image, x1 and y1 exclusive.
        segmentation: polygons [[x, y, x, y, ...], ...] in sub-pixel coordinates, or a compressed COCO RLE whose counts are text; None
            where the format has boxes only.
        keypoints: [x, y, visibility, ...], three numbers a keypoint, in sub-pixel coordinates (COCO's pixel indices + 0.5); None where
            there are none.
        crowd: a group that is not told apart; it is neither trained on nor counted as missed.
        id: what the file calls it, for messages; None where it has no name.
    """

    category: int
    box: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, Any] | None = None
    keypoints: list[float] | None = None
    crowd: bool = False
    id: int | str | None = None


@dataclass(slots=True)
class ImageRecord:
    """One image and its objects.

    Attributes:
        file_name: path of the file.
        image_id: unique in the data set.
        height: in pixels.
        width: in pixels.
        annotations: empty for an image without objects.
        extra: what else the mapper has to know to read the pixels, such as the slice of a volume; it goes into Detectron2's record.
    """

    file_name: str
    image_id: int | str
    height: int
    width: int
    annotations: list[Annotation] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class DataSet:
    """What a reader gives.

    Attributes:
        classes: names, in the order of the annotations' categories.
        images: the records.
        category_ids: the file's own id of every class, where it has such (COCO).
        keypoints: names, where objects have keypoints.
        skeleton: pairs of indices into them that are drawn as lines.
    """

    classes: list[str]
    images: list[ImageRecord]
    category_ids: list[int] | None = None
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)


def annotation_of_mask(mask: np.ndarray, category: int, **rest: Any) -> Annotation:
    """An annotation with RLE and tight box of a boolean mask (H, W) that is not empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
    return Annotation(category, box, encode_mask(mask), **rest)


def keypoints_to_subpixel(keypoints: Sequence[float]) -> list[float]:
    """Converts COCO's keypoints, which are indices of pixels, to sub-pixel coordinates: the centre of pixel 0 is at 0.5.

    Args:
        keypoints: [x, y, visibility, ...].

    Example:
        >>> keypoints_to_subpixel([3, 7, 2])
        [3.5, 7.5, 2]
    """
    return [value if index % 3 == 2 else value + 0.5 for index, value in enumerate(keypoints)]


def keypoints_to_pixel_indices(keypoints: Sequence[float]) -> list[float]:
    """Converts keypoints from sub-pixel coordinates to COCO's indices of pixels; the inverse of :func:`keypoints_to_subpixel`."""
    return [value if index % 3 == 2 else value - 0.5 for index, value in enumerate(keypoints)]


def box_of_polygons(polygons: list[list[float]], height: int, width: int) -> tuple[float, float, float, float]:
    """Returns the box (x0, y0, x1, y1) of what lies of polygons inside an image, in sub-pixel coordinates.

    Hand-drawn outlines have spikes that enclose nothing: an edge of the box is at most a pixel from the rasterised mask's.
    """
    xs = [min(max(x, 0.0), width) for polygon in polygons for x in polygon[0::2]]
    ys = [min(max(y, 0.0), height) for polygon in polygons for y in polygon[1::2]]
    corners = np.array([min(xs), min(ys), max(xs), max(ys)])
    raster = np.array(rle_box(segmentation_to_rle(polygons, height, width)))
    if raster.any():
        corners = np.clip(corners, raster - 1, raster + 1)
    x0, y0, x1, y1 = (float(value) for value in corners)
    return x0, y0, x1, y1
