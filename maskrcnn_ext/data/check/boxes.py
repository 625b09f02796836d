"""Checks of boxes by themselves and of the box against the mask."""

from __future__ import annotations

from collections.abc import Iterator

from maskrcnn_ext.data.check.faults import Fault, object_fault
from maskrcnn_ext.data.check.view import Box, DatasetView, ObjectView

# Tools round coordinates and count pixels from 0 or from 1: an edge may be as many pixels off.
_TOLERANCE = 2.0
# Of hand-drawn boxes an edge may also be off by this share of the box's side.
_SHARE = 0.1
# Box and mask of one object overlap more than this, amodal boxes of half-hidden objects included.
_MIN_IOU = 0.3


def check_boxes(view: DatasetView) -> Iterator[Fault]:
    """Finds boxes that are none, that leave their image, or that do not fit their mask."""
    for found in view.objects:
        box = found.box
        if box is None:
            yield object_fault("box-broken", found, "`bbox` is not [x, y, width, height]")
        elif box[2] <= box[0] or box[3] <= box[1]:
            size = f"{box[2] - box[0]:g} x {box[3] - box[1]:g} pixels (width, height)"
            yield object_fault("box-degenerate", found, size)
        else:
            yield from _check_place(found, box)
            if found.segmentation.box is not None:
                yield from _check_fit(found, box, found.segmentation.box)


def _check_place(found: ObjectView, box: Box) -> Iterator[Fault]:
    image = found.image
    if image is None or image.height is None or image.width is None:
        return
    beyond = max(-box[0], -box[1], box[2] - image.width, box[3] - image.height)
    message = f"the box {told(box)} in an image of {image.width} x {image.height} (width, height)"
    if min(box[2], image.width) <= max(box[0], 0) or min(box[3], image.height) <= max(box[1], 0):
        yield object_fault("box-outside", found, message)
    elif beyond > 1:
        yield object_fault("box-beyond-image", found, message)


def _check_fit(found: ObjectView, box: Box, mask: Box) -> Iterator[Fault]:
    if iou(box, mask) < _MIN_IOU and max(abs(a - b) for a, b in zip(box, mask, strict=True)) > _TOLERANCE:
        message = f"the box is {told(box)}, the mask's is {told(mask)}"
        as_corners = (box[0], box[1], box[2] - box[0], box[3] - box[1])
        if iou(as_corners, mask) > 0.8:
            message += "; `bbox` is [x0, y0, x1, y1], but must be [x, y, width, height]"
        yield object_fault("box-mask-mismatch", found, message)
        return
    allowed_x = max(_TOLERANCE, _SHARE * (mask[2] - mask[0]))
    allowed_y = max(_TOLERANCE, _SHARE * (mask[3] - mask[1]))
    beyond_x, beyond_y = max(box[0] - mask[0], mask[2] - box[2]), max(box[1] - mask[1], mask[3] - box[3])
    if beyond_x > allowed_x or beyond_y > allowed_y:
        message = f"the mask leaves its box {told(box)} by {max(beyond_x, beyond_y):.0f} pixels"
        yield object_fault("mask-beyond-box", found, message)


def iou(one: Box, other: Box) -> float:
    """Returns the intersection over union of two boxes (x0, y0, x1, y1); 0 where one of them has no area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def told(box: Box) -> str:
    """Such as ``x 3 to 10.5, y 0 to 20``."""
    x0, y0, x1, y1 = (f"{round(edge, 1):g}" for edge in box)
    return f"x {x0} to {x1}, y {y0} to {y1}"
