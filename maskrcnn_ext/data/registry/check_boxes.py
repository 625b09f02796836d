"""Finds boxes that cannot be right: without area, outside of their image, or in other units than pixels."""

from __future__ import annotations

import logging

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.checked_values import are_fractions
from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_BEYOND = 0.1  # share of its side by which a box leaves its image; less is rounding or a careless edge
_MANY = 0.25  # share of boxes that leave their image, from which they have corners instead of sizes


def check_boxes(data: DataSet, name: str) -> None:
    """Warns of boxes without area, outside of their image, or partly outside.

    Args:
        data: the records.
        name: of the data set, for messages.

    Raises:
        InputError: all coordinates are fractions of the image.
    """
    total = sum(len(record.annotations) for record in data.images)
    if are_fractions(annotation.box for record in data.images for annotation in record.annotations):
        raise InputError(
            f"data set {name}: all {plural(total, 'box', 'boxes')} lie in the first pixel: their coordinates are fractions of the image; "
            "multiply them by its width and height, as maskrcnn-ext check-data --fix does"
        )
    empty, beyond = [], []
    for record in data.images:
        for annotation in record.annotations:
            x0, y0, x1, y1 = annotation.box
            if x0 >= x1 or y0 >= y1 or x0 >= record.width or y0 >= record.height or x1 <= 0 or y1 <= 0:
                empty.append(record.image_id)
            elif max(-x0, x1 - record.width) > _BEYOND * (x1 - x0) or max(-y0, y1 - record.height) > _BEYOND * (
                y1 - y0
            ):
                beyond.append(record.image_id)
    if empty:
        logger.warning(
            "data set %s: %s without area or outside of their image, such as one of image %r; see maskrcnn-ext check-data",
            name,
            plural(len(empty), "object"),
            empty[0],
        )
    if beyond:
        corners = (
            "; are they x0, y0, x1, y1? COCO's `bbox` is x, y, width, height" if len(beyond) > _MANY * total else ""
        )
        logger.warning(
            "data set %s: %d of %d boxes leave their image by more than a tenth of their side, such as one of image %r%s; see maskrcnn-ext "
            "check-data",
            name,
            len(beyond),
            total,
            beyond[0],
            corners,
        )
