"""Checks for images that are there twice: within a set, and in the set that it is to be tested on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.hashing import near_pairs
from maskrcnn_ext.data.check.pixels import Pixels, PixelsByImage
from maskrcnn_ext.data.check.view import DatasetView, ImageView


def check_leaks(
    view: DatasetView, pixels: PixelsByImage, against: DatasetView | None, other_pixels: PixelsByImage
) -> Iterator[Fault]:
    """Finds exact and near copies of images.

    Args:
        view: the data set.
        pixels: what reading its files found.
        against: another data set, such as the validation split; None for none.
        other_pixels: as `pixels`, of the other set.
    """
    others = [] if against is None else _readable(against, other_pixels)
    own = _readable(view, pixels)
    found = others + own
    if not own:
        return
    first: dict[bytes, int] = {}
    for index, (image, read) in enumerate(found):
        earlier = first.setdefault(read.digest, index)
        if index >= len(others) and earlier != index:
            leak = earlier < len(others)
            kind = "leak-exact" if leak else "image-duplicate"
            yield _fault(kind, image, found[earlier][0], against if leak else None, "")
    thumbs = np.stack([read.thumb for _, read in found if read.thumb is not None])
    for later, earlier, turned in near_pairs(thumbs, len(others)):
        if found[later][1].digest != found[earlier][1].digest:
            leak = earlier < len(others)
            kind = "leak-near" if leak else "image-near-duplicate"
            how = ", turned or mirrored" if turned else ""
            yield _fault(kind, found[later][0], found[earlier][0], against if leak else None, how)


def _readable(view: DatasetView, pixels: PixelsByImage) -> list[tuple[ImageView, Pixels]]:
    """The images whose pixels are known, each once."""
    found: dict[Any, tuple[ImageView, Pixels]] = {}
    for image in view.images:
        read = pixels.get(image.key)
        if read is not None and not read.problem:
            found.setdefault(image.key, (image, read))
    return list(found.values())


def _fault(kind: str, image: ImageView, other: ImageView, against: DatasetView | None, how: str) -> Fault:
    where = "" if against is None else f" of {against.name}"
    return Fault(kind, f"image {other.id!r} ({other.file_name}){where}{how}", image, None, other)
