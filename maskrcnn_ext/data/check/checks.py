"""Checks of annotations: boxes, masks, objects annotated twice, and the proportions of the dataset.

A check is a generator of faults. It changes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.check.faults import Fault, object_fault
from maskrcnn_ext.data.check.view import DatasetView, ObjectView
from maskrcnn_ext.data.formats.checked_values import are_fractions
from maskrcnn_ext.data.formats.coco_fields import Box
from maskrcnn_ext.data.formats.polygons import is_rectangle
from maskrcnn_ext.ops.rle import pairwise_iou

# Pixels by which an edge of a box may differ from the mask's: tools round coordinates and count pixels from 0 or from 1.
_BOX_TOLERANCE = 2.0
# Boxes that people drew may also differ by this share of the mask's side.
_BOX_TOLERANCE_SHARE = 0.1
# IoU of box and mask below which they show different places. Amodal boxes of half-hidden objects overlap more.
_MIN_BOX_MASK_IOU = 0.3
# IoU above which `bbox`, read as corners, is taken to be meant as corners.
_CORNERS_IOU = 0.8
# `area` is wrong if it differs by both: the area of a polygon and of its pixels differ by about the outline.
_AREA_SHARE, _AREA_PIXELS = 0.25, 20
_SEGMENTATION_FORMS = ("none", "polygons", "rle")
_DUPLICATE_IOU = 0.95  # two annotations of one class that overlap more are one object
_MAX_ASPECT_RATIO = 20.0  # longer over shorter side of a box
_MAX_OBJECTS = 100  # detections of one image that a Detectron2 model returns by default
_MAX_IMBALANCE = 50.0  # objects of the most frequent class over those of another


def check_boxes(view: DatasetView) -> Iterator[Fault]:
    """Finds boxes that are invalid, in other units than pixels, leave their image or do not fit their mask."""
    boxes = [found.box for found in view.objects if found.box is not None]
    if are_fractions(boxes):
        lie = "it lies" if len(boxes) == 1 else f"all {len(boxes)} lie"
        yield Fault("boxes-fractions", f"{lie} in the first pixel of the image")
    for found in view.objects:
        box = found.box
        if found.rotated is not None and box is not None:
            yield object_fault("box-rotated", found, f"read as a polygon; the box around it is {describe_box(box)}")
        if box is None:
            yield object_fault("box-broken", found, "`bbox` is not [x, y, width, height]")
        elif box[2] <= box[0] or box[3] <= box[1]:
            size = f"{box[2] - box[0]:g} x {box[3] - box[1]:g} pixels (width, height)"
            yield object_fault("box-degenerate", found, size)
        else:
            yield from _check_box_in_image(found, box)
            if found.segmentation.box is not None:
                yield from _check_box_of_mask(found, box, found.segmentation.box)


def _check_box_in_image(found: ObjectView, box: Box) -> Iterator[Fault]:
    image = found.image
    if image is None or image.height is None or image.width is None:
        return
    beyond = max(-box[0], -box[1], box[2] - image.width, box[3] - image.height)
    message = f"the box {describe_box(box)} in an image of {image.width} x {image.height} (width, height)"
    if min(box[2], image.width) <= max(box[0], 0) or min(box[3], image.height) <= max(box[1], 0):
        yield object_fault("box-outside", found, message)
    elif beyond > 1:
        yield object_fault("box-beyond-image", found, message)


def _check_box_of_mask(found: ObjectView, box: Box, mask_box: Box) -> Iterator[Fault]:
    difference = max(abs(a - b) for a, b in zip(box, mask_box, strict=True))
    if box_iou(box, mask_box) < _MIN_BOX_MASK_IOU and difference > _BOX_TOLERANCE:
        message = f"the box is {describe_box(box)}, the mask's is {describe_box(mask_box)}"
        as_corners = (box[0], box[1], box[2] - box[0], box[3] - box[1])
        if box_iou(as_corners, mask_box) > _CORNERS_IOU:
            message += "; `bbox` is [x0, y0, x1, y1], but must be [x, y, width, height]"
        yield object_fault("box-mask-mismatch", found, message)
        return
    allowed_x = max(_BOX_TOLERANCE, _BOX_TOLERANCE_SHARE * (mask_box[2] - mask_box[0]))
    allowed_y = max(_BOX_TOLERANCE, _BOX_TOLERANCE_SHARE * (mask_box[3] - mask_box[1]))
    beyond_x = max(box[0] - mask_box[0], mask_box[2] - box[2])
    beyond_y = max(box[1] - mask_box[1], mask_box[3] - box[3])
    if beyond_x > allowed_x or beyond_y > allowed_y:
        message = f"the mask leaves its box {describe_box(box)} by {max(beyond_x, beyond_y):.0f} pixels"
        yield object_fault("mask-beyond-box", found, message)


def box_iou(one: Box, other: Box) -> float:
    """Returns the IoU of two boxes (x0, y0, x1, y1); 0 if one of them has no area.

    Example:
        >>> box_iou((0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0))
        0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def describe_box(box: Box) -> str:
    """Returns a box in words.

    Example:
        >>> describe_box((3.0, 0.0, 10.5, 20.0))
        'x 3 to 10.5, y 0 to 20'
    """
    x0, y0, x1, y1 = (f"{round(edge, 1):g}" for edge in box)
    return f"x {x0} to {x1}, y {y0} to {y1}"


def check_masks(view: DatasetView) -> Iterator[Fault]:
    """Finds masks that are missing, broken, empty or outside the image, and polygons and RLEs in one dataset."""
    for found in view.objects:
        for kind, message in found.segmentation.problems:
            yield object_fault(kind, found, message)
        yield from _check_polygons(found)
        yield from _check_area(found)
    yield from _check_forms(view)


def _check_polygons(found: ObjectView) -> Iterator[Fault]:
    polygons = found.segmentation.polygons
    crossing = [number for number, points in enumerate(polygons) if not shapely.Polygon(points).is_valid]
    if crossing:
        place = _place_of_crossing(shapely.Polygon(polygons[crossing[0]]))
        yield object_fault("polygon-crossing", found, f"{_polygon_numbers(crossing)}: {place}")
    image = found.image
    if image is None or image.height is None or image.width is None:
        return
    beyond = [max(-points.min(), (points - (image.width, image.height)).max()) for points in polygons]
    leaving = [number for number, distance in enumerate(beyond) if distance > 1]
    if leaving:
        message = f"{_polygon_numbers(leaving)}: by up to {max(beyond):.0f} pixels"
        yield object_fault("polygon-beyond-image", found, message)


def _place_of_crossing(polygon: shapely.Polygon) -> str:
    reason = shapely.is_valid_reason(polygon)
    place = re.fullmatch(r"(?:Ring )?Self-intersection\[(\S+) (\S+)\]", reason)
    return f"at x {float(place[1]):.1f}, y {float(place[2]):.1f}" if place else reason


def _polygon_numbers(numbers: list[int]) -> str:
    return f"polygon{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _check_area(found: ObjectView) -> Iterator[Fault]:
    mask = found.segmentation
    if mask.rle is None:
        return
    if mask.area == 0:
        message = "an RLE without pixels" if mask.form == "rle" else "polygons that enclose no pixel"
        yield object_fault("mask-empty", found, message)
    elif found.area is None:
        yield object_fault("area-mismatch", found, f"`area` is missing, the mask has {mask.area} pixels")
    elif abs(found.area - mask.area) > max(_AREA_PIXELS, _AREA_SHARE * mask.area):
        yield object_fault("area-mismatch", found, f"`area` is {found.area:g}, the mask has {mask.area} pixels")


def _check_forms(view: DatasetView) -> Iterator[Fault]:
    """Compares the objects' segmentations with each other. Crowds are RLEs and not trained on, so they are left out."""
    by_form = {
        form: [found for found in view.objects if found.segmentation.form == form and not found.crowd]
        for form in _SEGMENTATION_FORMS
    }
    with_mask = len(by_form["polygons"]) + len(by_form["rle"])
    if by_form["none"] and with_mask:
        for found in by_form["none"]:
            yield object_fault(
                "segmentation-missing", found, f"{plural(with_mask, 'other object has', 'other objects have')} a mask"
            )
    elif by_form["none"]:
        yield Fault("segmentation-none", f"none of {plural(len(by_form['none']), 'object')} has a mask")
    if by_form["polygons"] and by_form["rle"]:
        rare, common = sorted(("polygons", "rle"), key=lambda form: len(by_form[form]))
        names = {"polygons": "polygons", "rle": "an RLE"}
        for found in by_form[rare]:
            message = f"{names[rare]}, but {names[common]}: {plural(len(by_form[common]), 'object')}"
            yield object_fault("mask-mixed", found, message)
    rectangles = [found for found in by_form["polygons"] if found.rotated is None and _is_rectangle(found)]
    if rectangles:
        yield Fault("masks-rectangles", f"{len(rectangles)} of {plural(with_mask, 'mask')}")
    for found in view.objects:
        if found.crowd and found.segmentation.form == "polygons":
            yield object_fault("crowd-polygon", found, "`iscrowd` is 1, `segmentation` a list of polygons")


def _is_rectangle(found: ObjectView) -> bool:
    polygons = found.segmentation.polygons
    return len(polygons) == 1 and is_rectangle(polygons[0].ravel().tolist())


def check_duplicate_objects(view: DatasetView) -> Iterator[Fault]:
    """Finds objects of one class that cover each other."""
    for image in view.images:
        groups: dict[tuple[int | None, bool], list[ObjectView]] = {}
        for found in view.objects_of(image):
            has_mask = found.segmentation.rle is not None and found.segmentation.area > 0
            if not found.crowd and (has_mask or found.box is not None):
                groups.setdefault((found.category, has_mask), []).append(found)
        for (_, have_masks), group in groups.items():
            same = np.tril(_pairwise_iou(group, have_masks), -1) > _DUPLICATE_IOU
            for later in np.flatnonzero(same.any(axis=1)):
                message = f"the same as annotation {group[same[later].argmax()].id!r}"
                yield object_fault("instance-duplicate", group[later], message)


def _pairwise_iou(group: list[ObjectView], have_masks: bool) -> np.ndarray:
    """Returns the IoU (N, N) of the masks of N objects, or of their boxes if they have no masks."""
    shapes: Any
    if have_masks:
        shapes = [found.segmentation.rle for found in group]
    else:
        boxes = np.array([found.box for found in group], dtype=np.float64)
        shapes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return pairwise_iou(shapes, shapes)


def check_proportions(view: DatasetView) -> Iterator[Fault]:
    """Finds very long boxes, crowded and empty images, rare and empty classes."""
    for found in view.objects:
        if found.box is not None:
            shorter, longer = sorted((found.box[2] - found.box[0], found.box[3] - found.box[1]))
            if shorter > 0 and longer > _MAX_ASPECT_RATIO * shorter:
                yield object_fault("aspect-extreme", found, f"{longer:g} by {shorter:g} pixels")
    for image in view.images:
        count = len(view.objects_of(image))
        if count > _MAX_OBJECTS:
            yield Fault("objects-many", f"{count} objects", image)
    if not view.images:
        yield Fault("images-none", "`images` is an empty list")
    empty = sum(all(found.crowd for found in view.objects_of(image)) for image in view.images)
    if empty:
        yield Fault("images-empty", f"{empty} of {plural(len(view.images), 'image')}")
    if view.objects and all(found.crowd for found in view.objects):
        yield Fault("crowds-only", f"all: {plural(len(view.objects), 'object')}")
    yield from _check_classes(view)


def _check_classes(view: DatasetView) -> Iterator[Fault]:
    counts = Counter(found.category for found in view.objects if found.category is not None and not found.crowd)
    crowds = Counter(found.category for found in view.objects if found.crowd)
    most = max(counts, key=lambda index: counts[index], default=None)
    for index, name in enumerate(view.classes):
        if counts[index] == 0:
            yield Fault(
                "class-empty",
                f"class {name!r}" + (f": its objects are crowds: {crowds[index]}" if crowds[index] else ""),
            )
        elif most is not None and counts[most] > _MAX_IMBALANCE * counts[index]:
            message = f"{counts[index]} of class {name!r}, {counts[most]} of {view.classes[most]!r}"
            yield Fault("class-imbalance", message)
