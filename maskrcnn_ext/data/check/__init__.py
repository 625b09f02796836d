"""Looks a data set over before it is trained on: every fault at once, each with its place and its mend.

The readers stop at the first thing that is wrong; here COCO files are read leniently, and other formats through their records.
A check is a generator of faults from a :class:`~maskrcnn_ext.data.check.view.DatasetView`; none of them changes anything.
"""

from __future__ import annotations

from maskrcnn_ext.data.check.boxes import check_boxes
from maskrcnn_ext.data.check.faults import KINDS, SEVERITIES, Fault, group_by_kind
from maskrcnn_ext.data.check.leaks import check_leaks
from maskrcnn_ext.data.check.masks import check_masks
from maskrcnn_ext.data.check.pixels import PixelsByImage, check_pixels, read_images
from maskrcnn_ext.data.check.proportions import check_duplicates, check_proportions
from maskrcnn_ext.data.check.records import check_records
from maskrcnn_ext.data.check.view import DatasetView, view_dataset

__all__ = [
    "KINDS",
    "SEVERITIES",
    "DatasetView",
    "Fault",
    "PixelsByImage",
    "find_faults",
    "group_by_kind",
    "read_images",
    "view_dataset",
]


def find_faults(
    view: DatasetView,
    pixels: PixelsByImage | None = None,
    against: DatasetView | None = None,
    other_pixels: PixelsByImage | None = None,
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
