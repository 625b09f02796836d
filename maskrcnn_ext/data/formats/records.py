"""The records that the readers of all formats return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.ops.rle import encode_mask, rle_box


@dataclass(slots=True)
class Annotation:
    """One object.

    Attributes:
        category: index into the data set's class names, from 0.
        box: (x0, y0, x1, y1) in pixels of the image, x1 and y1 exclusive.
        segmentation: polygons [[x, y, x, y, ...], ...] in sub-pixel coordinates, or a compressed COCO RLE whose counts are text; None
            for an object that has only a box.
        keypoints: [x, y, visibility, ...], three numbers per keypoint, in sub-pixel coordinates (COCO's pixel indices + 0.5); None for
            an object without keypoints.
        crowd: whether it is a group of objects, which is neither trained on nor counted as missed.
        id: the id in the file, for messages; None if it has none.
        score: of a prediction, from 0 to 1; None for a label.
        points: [x, y, label, ...] in sub-pixel coordinates: labelled points of the mask (1) and of the background (0); None if there are
            none.
    """

    category: int
    box: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict[str, Any] | None = None
    keypoints: list[float] | None = None
    crowd: bool = False
    id: int | str | None = None
    score: float | None = None
    points: list[float] | None = None


@dataclass(slots=True)
class ImageRecord:
    """One image and its objects.

    Attributes:
        file_name: path of the file.
        image_id: unique in the data set.
        height: in pixels.
        width: in pixels.
        annotations: empty for an image without objects.
        extra: what else is needed to read the pixels, such as the slice of a volume; it is added to Detectron2's dict.
        labelled_classes: the categories that are labelled in this image; None if all are.
    """

    file_name: str
    image_id: int | str
    height: int
    width: int
    annotations: list[Annotation] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    labelled_classes: list[int] | None = None


@dataclass(slots=True, repr=False)
class DataSet:
    """A dataset as readers return it.

    Attributes:
        classes: names, in the order of the annotations' categories.
        images: the records.
        category_ids: the id of each class in the file; None if the format has no such ids.
        keypoints: names of the keypoints; empty for objects without keypoints.
        skeleton: pairs of indices of keypoints that are joined by lines.
    """

    classes: list[str]
    images: list[ImageRecord]
    category_ids: list[int] | None = None
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)

    def __repr__(self) -> str:
        num_objects = sum(len(image.annotations) for image in self.images)
        counts = f"{plural(len(self.images), 'image')}, {plural(num_objects, 'object')}"
        return f"DataSet({counts} of {short_list(self.classes)})"


def annotation_of_mask(mask: np.ndarray, category: int, **rest: Any) -> Annotation:
    """Returns an annotation with the RLE and the tight box of a boolean mask (H, W), which must not be empty."""
    rle = encode_mask(mask)
    return Annotation(category, rle_box(rle), rle, **rest)


def crowds_of_mask(mask: np.ndarray, num_classes: int) -> list[Annotation]:
    """Returns an ignore region (H, W), bool, as COCO has it: a crowd of each class; nothing for an empty mask."""
    if not mask.any():
        return []
    rle = encode_mask(mask)
    return [Annotation(category, rle_box(rle), rle, crowd=True) for category in range(num_classes)]


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
