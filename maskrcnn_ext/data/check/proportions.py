"""Checks of what a set has too much or too little of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from maskrcnn_ext.data.check.faults import Fault, object_fault
from maskrcnn_ext.data.check.view import DatasetView, ObjectView

_MIN_IOU = 0.95  # of two annotations that are one object
_MAX_RATIO = 20.0  # of a box's sides
_MAX_OBJECTS = 100  # what a Detectron2 model returns of an image by default
_MAX_IMBALANCE = 50.0  # of the commonest class to another


def check_duplicates(view: DatasetView) -> Iterator[Fault]:
    """Finds objects of one class that lie on one another."""
    for image in view.images:
        by_class: dict[tuple[int | None, bool], list[ObjectView]] = {}
        for found in view.objects_of(image):
            whole = found.segmentation.rle is not None and found.segmentation.area > 0
            if not found.crowd and (whole or found.box is not None):
                by_class.setdefault((found.category, whole), []).append(found)
        for (_, masked), group in by_class.items():
            same = np.tril(_overlaps(group, masked), -1) > _MIN_IOU
            for later in np.flatnonzero(same.any(axis=1)):
                message = f"the same as annotation {group[same[later].argmax()].id!r}"
                yield object_fault("instance-duplicate", group[later], message)


def _overlaps(group: list[ObjectView], masked: bool) -> np.ndarray:
    """Returns the intersection over union (N, N) of masks, of boxes where there are none."""
    shapes: Any
    if masked:
        shapes = [found.segmentation.rle for found in group]
    else:
        boxes = np.array([found.box for found in group], dtype=np.float64)
        shapes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    overlaps: np.ndarray = mask_util.iou(shapes, shapes, [0] * len(group))
    return overlaps


def check_proportions(view: DatasetView) -> Iterator[Fault]:
    """Finds very long boxes, crowded and empty images, rare and empty classes."""
    for found in view.objects:
        if found.box is not None:
            sides = sorted((found.box[2] - found.box[0], found.box[3] - found.box[1]))
            if sides[0] > 0 and sides[1] > _MAX_RATIO * sides[0]:
                yield object_fault("aspect-extreme", found, f"{sides[1]:g} by {sides[0]:g} pixels")
    for image in view.images:
        count = len(view.objects_of(image))
        if count > _MAX_OBJECTS:
            yield Fault("objects-many", f"{count} objects", image)
    if not view.images:
        yield Fault("images-none", "`images` is an empty list")
    empty = sum(not view.objects_of(image) for image in view.images)
    if empty:
        yield Fault("images-empty", f"{empty} of {len(view.images)} images")
    yield from _check_classes(view)


def _check_classes(view: DatasetView) -> Iterator[Fault]:
    counts = Counter(found.category for found in view.objects if found.category is not None)
    most = max(counts, key=lambda index: counts[index], default=None)
    for index, name in enumerate(view.classes):
        if counts[index] == 0:
            yield Fault("class-empty", f"class {name!r}")
        elif most is not None and counts[most] > _MAX_IMBALANCE * counts[index]:
            message = f"{counts[index]} of class {name!r}, {counts[most]} of {view.classes[most]!r}"
            yield Fault("class-imbalance", message)
