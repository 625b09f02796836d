"""Readers of image files, one family a file: each gives the pixels as stored, (H, W, C)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any

from maskrcnn_ext.errors import InputError

# Numbers that are decoded at once: 2 GiB as float32. For three channels it is where Pillow, too, refuses to decode.
MAX_VALUES = 2**29


def check_size(name: str, shape: Sequence[int]) -> None:
    """Refuses an image by its header, before memory is spent on it.

    Args:
        name: the file.
        shape: what would be decoded.

    Raises:
        InputError: more than :data:`MAX_VALUES` numbers, or none.
    """
    told = " x ".join(map(str, shape))
    if prod(shape) > MAX_VALUES:
        raise InputError(
            f"{name}: {told} values are more than the {MAX_VALUES} that are read at once: cut the image into tiles, or give "
            "its records a `window` (TIFF, NPY)"
        )
    if prod(shape) == 0:
        raise InputError(f"{name}: has no pixels ({told})")


def window_of(record: dict[str, Any], height: int, width: int) -> tuple[int, int, int, int]:
    """Returns (x, y, width, height) of the record's ``window``.

    Raises:
        InputError: it is malformed or not inside the file's image of ``height`` x ``width``.
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
    """Returns the record's ``slice`` in a stack of ``count``.

    Raises:
        InputError: the record has none, or there is no such slice.
    """
    name, index = record["file_name"], record.get("slice")
    if index is None:
        raise InputError(f"{name}: a stack of {count} images: its record needs `slice`, from 0 to {count - 1}")
    if not isinstance(index, int) or not 0 <= index < count:
        raise InputError(f"{name}: `slice` is {index!r}, expected a number from 0 to {count - 1}")
    return index


def require(module: str, extra: str, name: str) -> ModuleType:
    """Imports an optional library; InputError names the extra that brings it."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise InputError(f'{name}: reading it needs {package}: pip install "maskrcnn_ext[{extra}]"') from None
