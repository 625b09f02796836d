"""Checks values of annotation files: numbers, class names, boxes and RLEs. Errors name the value and its place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import RLE, Box, rle_box, with_text_counts
from maskrcnn_ext.ops.rle_checks import check_rle

_CARELESS = 0.1  # by which a box in fractions may leave its image
_ROUNDING = 1e-3  # pixels; a box that extends beyond its image by less is not counted


def finite(values: Iterable[Any], where: str) -> list[float]:
    """Returns numbers as floats; raises InputError for anything else, infinities and NaN."""
    values = list(values)
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: expected numbers, found {values!r:.100}") from None
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{where}: expected finite numbers, found {values!r:.100}")
    return numbers


def category_of(name: Any, classes: Sequence[str], where: str) -> int:
    """Returns the index of a class name; raises InputError if it is unknown."""
    if name not in classes:
        raise InputError(f"{where}: class {name!r}, expected one of {', '.join(classes)}")
    return list(classes).index(name)


def clip_box(
    box: Sequence[float], height: int, width: int, where: str, clipped: list[str] | None = None
) -> tuple[float, float, float, float]:
    """Returns the part of a box (x0, y0, x1, y1) inside an image.

    Args:
        box: in pixels.
        height: of the image.
        width: of the image.
        where: the place of the box; it begins the error message.
        clipped: gets `where` if the box extends beyond the image, for a warning.

    Raises:
        InputError: it has no area.
    """
    x0, x1 = (min(max(x, 0.0), float(width)) for x in box[0::2])
    y0, y1 = (min(max(y, 0.0), float(height)) for y in box[1::2])
    if x0 >= x1 or y0 >= y1:
        raise InputError(f"{where}: box (x0, y0, x1, y1) {tuple(box)} has no area in an image of {width} x {height}")
    if clipped is not None and max(abs(a - b) for a, b in zip((x0, y0, x1, y1), box, strict=True)) > _ROUNDING:
        clipped.append(where)
    return x0, y0, x1, y1


def are_fractions(boxes: Iterable[Sequence[float]]) -> bool:
    """Returns whether boxes are fractions of their images: all lie in the first pixel, and not all edges are whole numbers.

    Args:
        boxes: (x0, y0, x1, y1) each, of all objects of a data set.

    Example:
        >>> are_fractions([(0.2, 0.3, 1.0, 1.0)]), are_fractions([(0, 0, 1, 1)]), are_fractions([(0.5, 0.5, 9.0, 9.0)])
        (True, False, False)
    """
    found = False
    for box in boxes:
        if max(box) > 1 + _CARELESS:
            return False
        found = found or any(edge % 1 for edge in box)
    return found


def checked_rle(rle: Any, height: int, width: int, where: str) -> tuple[Box, RLE]:
    """Returns the tight box (x0, y0, x1, y1) and the compressed RLE, its counts as text, of an RLE that comes from a file.

    Args:
        rle: expected to be an RLE, compressed or not.
        height: height of its image in pixels.
        width: width of its image in pixels.
        where: the file, and the record in it, that has the RLE; it begins the error message.

    Raises:
        InputError: the RLE is broken, of another size than its image, or empty.
    """
    try:
        checked = with_text_counts(check_rle(rle, height, width))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    box = rle_box(checked)
    if not any(box):
        raise InputError(f"{where}: the mask has no pixel")
    return box, checked
