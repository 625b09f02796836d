"""Readers of image files, one file a family of formats. Each returns the pixels as stored, (H, W, C)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from maskrcnn_ext.errors import InputError

# The most numbers to decode at once: 2 GiB as float32. For three channels, Pillow has the same limit.
MAX_VALUES = 2**29
TILING_ADVICE = "predict it in tiles (--tile 1024), train on tiles (dataloader.train.dataset._target_=maskrcnn_ext.get_tiled_dataset_dicts)"
# Integers up to this one are exact in float32.
_EXACT_IN_FLOAT32 = 2**24


def check_size(name: str, shape: Sequence[int]) -> None:
    """Raises if an image is too large to decode. Readers call it with the header's shape, before they allocate memory.

    Args:
        name: the file.
        shape: of the array that would be decoded.

    Raises:
        InputError: the shape has more than :data:`MAX_VALUES` numbers, or none.
    """
    size = " x ".join(map(str, shape))
    if prod(shape) > MAX_VALUES:
        raise InputError(f"{name}: {size} values are more than the {MAX_VALUES} that are read at once: {TILING_ADVICE}")
    if prod(shape) == 0:
        raise InputError(f"{name}: has no pixels ({size})")


def window_of(record: dict[str, Any], height: int, width: int) -> tuple[int, int, int, int]:
    """Returns the record's ``window`` (x, y, width, height).

    Raises:
        InputError: it is malformed or not inside the file's image of ``height`` x ``width``.

    Example:
        >>> window_of({"file_name": "a.tif", "window": [0, 8, 16, 16]}, height=32, width=32)
        (0, 8, 16, 16)
    """
    name, window = record["file_name"], record["window"]
    try:
        x, y, w, h = (int(value) for value in window)
    except (TypeError, ValueError):
        raise InputError(f"{name}: `window` is {window!r}, expected [x, y, width, height]") from None
    if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
        raise InputError(
            f"{name}: `window` {[x, y, w, h]} (x, y, width, height) is not inside its {width} x {height} pixels"
        )
    return x, y, w, h


def slice_of(record: dict[str, Any], count: int) -> int:
    """Returns the record's ``slice`` in a stack of ``count`` images.

    Raises:
        InputError: the record has no ``slice``, or it is out of range.
    """
    name, index = record["file_name"], record.get("slice")
    if index is None:
        raise InputError(f"{name}: a stack of {count} images: its record needs `slice`, from 0 to {count - 1}")
    if not isinstance(index, int) or not 0 <= index < count:
        raise InputError(f"{name}: `slice` is {index!r}, expected a number from 0 to {count - 1}")
    return index


def plain_type(image: np.ndarray, name: str) -> np.ndarray:
    """Returns an image as uint8, uint16, int16 or float32, in the byte order of the machine.

    Raises:
        InputError: it has values that are no numbers, not finite, or not exact in float32.
    """
    kind, size = image.dtype.kind, image.dtype.itemsize
    if kind not in "biuf":
        raise InputError(f"{name}: pixels of type {image.dtype} are not numbers")
    if kind == "b":
        return image.astype(np.uint8)
    if image.dtype.newbyteorder("=") in (np.uint8, np.uint16, np.int16):
        return image.astype(image.dtype.newbyteorder("="), copy=False)
    if kind in "iu" and size > 2 and image.size and max(-int(image.min()), int(image.max())) > _EXACT_IN_FLOAT32:
        raise InputError(f"{name}: values up to {image.max()} lose digits in float32; rescale them below 2^24")
    image = image.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        raise InputError(
            f"{name}: has pixels that are NaN or infinite; fill them (no-data areas, for example) with a number"
        )
    return image
