"""Looks a data set over before it is trained on: every fault at once, each with its place and its mend.

The readers stop at the first thing that is wrong; here COCO files are read leniently, and other formats through their records.
A check is a generator of faults from a :class:`~maskrcnn_ext.data.check.view.View`; none of them changes anything.
"""

from __future__ import annotations

from maskrcnn_ext.data.check.boxes import check_boxes
from maskrcnn_ext.data.check.faults import KINDS, SEVERITIES, Fault, worst_first
from maskrcnn_ext.data.check.leaks import check_leaks
from maskrcnn_ext.data.check.masks import check_masks
from maskrcnn_ext.data.check.pixels import PixelsOf, check_pixels, read_images
from maskrcnn_ext.data.check.proportions import check_duplicates, check_proportions
from maskrcnn_ext.data.check.records import check_records
from maskrcnn_ext.data.check.view import View, view_of

__all__ = ["KINDS", "SEVERITIES", "Fault", "PixelsOf", "View", "examine", "read_images", "view_of", "worst_first"]


def examine(
    view: View,
    pixels: PixelsOf | None = None,
    against: View | None = None,
    other_pixels: PixelsOf | None = None,
) -> list[Fault]:
    """Returns all faults of a data set.

    Args:
        view: the data set.
        pixels: what :func:`read_images` found of it; None leaves the files out.
        against: another set that must share no image with this one.
        other_pixels: what :func:`read_images` found of the other set.
    """
    faults = [fault for check in (check_records, check_boxes, check_masks) for fault in check(view)]
    faults += [*check_duplicates(view), *check_proportions(view)]
    if pixels is not None:
        faults += [*check_pixels(view, pixels), *check_leaks(view, pixels, against, other_pixels or {})]
    return faults
