"""Label images (one number an object) to boxes and RLEs, and RLEs that come from a file. No mask of a whole image is made."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_util

from maskrcnn_ext.data.formats.rle_check import find_broken_rle
from maskrcnn_ext.errors import InputError


class Region(NamedTuple):
    """The pixels of one number in a label image.

    Attributes:
        value: the number.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.
        segmentation: a compressed COCO RLE, its counts as text.
    """

    value: int
    box: tuple[float, float, float, float]
    segmentation: dict[str, Any]


def regions_of(labels: np.ndarray) -> list[Region]:
    """Returns the region of every number but 0 in a label image (H, W) of integers, sorted by number.

    The time depends on the pixels of the objects, not on objects times pixels of the image.
    """
    height, width = labels.shape
    by_column = labels.ravel(order="F")
    pixels = np.flatnonzero(by_column)
    values = by_column[pixels]
    order = np.argsort(values, kind="stable")
    pixels, values = pixels[order], values[order]
    found, starts = np.unique(values, return_index=True)
    regions = []
    for value, inside in zip(found, np.split(pixels, starts[1:]), strict=False):
        ys = inside % height
        box = (inside[0] // height, ys.min(), inside[-1] // height + 1, ys.max() + 1)
        x0, y0, x1, y1 = (float(edge) for edge in box)
        regions.append(Region(int(value), (x0, y0, x1, y1), _encode(inside, height, width)))
    return regions


def _encode(inside: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """A compressed RLE of pixels, given by their sorted positions column by column."""
    gaps = np.flatnonzero(np.diff(inside) != 1)
    first, last = inside[np.append(0, gaps + 1)], inside[np.append(gaps, -1)]
    counts = np.diff(np.stack([first, last + 1], axis=1).ravel(), prepend=0).tolist()
    rest = height * width - int(inside[-1]) - 1
    rle: dict[str, Any] = mask_util.frPyObjects(
        {"size": [height, width], "counts": counts + [rest] * (rest > 0)}, height, width
    )
    return {**rle, "counts": rle["counts"].decode("ascii")}


def checked_rle(counts: Any, height: int, width: int, where: str) -> dict[str, Any]:
    """A compressed COCO RLE out of counts that come from a file.

    pycocotools trusts them, and reads or writes where it should not when they are broken.

    Args:
        counts: COCO's compressed text.
        height: of the image.
        width: of the image.
        where: begins the error message.

    Raises:
        InputError: the text is not such counts, or they do not add up to the image.
    """
    if not isinstance(counts, str) or find_broken_rle([counts], [height * width]) is not None:
        raise InputError(f"{where}: the RLE is broken or cut off, or not of the {height} x {width} pixels of its image")
    return {"size": [height, width], "counts": counts}


def box_of_rle(rle: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    """Returns the box (x0, y0, x1, y1) of a compressed RLE, which must not be empty."""
    x, y, width, height = (float(value) for value in mask_util.toBbox(rle))
    if not width:
        raise InputError(f"{where}: the mask has no pixel")
    return x, y, x + width, y + height
