"""Checks a dataset before training: finds all faults at once, each with its place and how to fix it.

The readers stop at the first fault. Here, COCO files are read leniently, and other formats through their readers' records.
"""

from __future__ import annotations

from maskrcnn_ext.data.check.checks import check_boxes, check_duplicate_objects, check_masks, check_proportions
from maskrcnn_ext.data.check.duplicates import check_duplicate_images
from maskrcnn_ext.data.check.faults import KINDS, SEVERITIES, Fault, group_by_kind
from maskrcnn_ext.data.check.images import PixelsByImage, check_images, read_images
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
    """Returns all faults of a dataset.

    Args:
        view: the dataset.
        pixels: its images, as :func:`read_images` returns them; None skips the checks of image files.
        against: another dataset that must not share an image with this one.
        other_pixels: the images of the other dataset.

    Example:
        >>> from pathlib import Path
        >>> data = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
        >>> [fault.kind for fault in find_faults(view_dataset(data, Path(), "train"))]
        ['image-sizeless', 'images-empty']
    """
    checks = (check_records, check_boxes, check_masks, check_duplicate_objects, check_proportions)
    faults = [fault for check in checks for fault in check(view)]
    if pixels is not None:
        faults += [*check_images(view, pixels), *check_duplicate_images(view, pixels, against, other_pixels or {})]
    return faults
