"""Checks run-length encodings that come from files: pycocotools trusts its input, and broken counts make it read and write out of bounds.

:func:`check_rle` says what is wrong with one RLE, :func:`find_broken_rle` finds a broken one among many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn_ext.ops.rle import RLE, compress_runs, counts_text, rle_union, segmentation_to_rle

# RLEs that find_broken_rle checks at once, which bounds its memory.
_BATCH = 10_000
# A run of more characters, 35 bits, is longer than any image has pixels.
_LONGEST_NUMBER = 7


def check_rle(rle: Any, height: int | None = None, width: int | None = None) -> RLE:
    """Checks an RLE that comes from a file and returns it compressed.

    Args:
        rle: expected to be an RLE, compressed or not.
        height: height of its image in pixels; None if it is unknown.
        width: width of its image in pixels; None if it is unknown.

    Raises:
        ValueError: it is broken, or of another size than its image. The message completes "annotation 7 has ...".

    Example:
        >>> check_rle({"size": [2, 2], "counts": [2, 1]})
        Traceback (most recent call last):
        ValueError: an RLE whose `counts` add up to 3, not to its 2 x 2 pixels
    """
    if not isinstance(rle, dict):
        raise ValueError(f"an RLE of type {type(rle).__name__}, expected a mapping with `size` and `counts`")
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_side, size))):
        raise ValueError(f"an RLE of size {size!r:.100}, expected [height, width]")
    size = [int(size[0]), int(size[1])]
    if height is not None and width is not None and size != [height, width]:
        raise ValueError(f"an RLE of size {size}, but its image is {height} x {width} (height, width)")
    runs = decode_counts(counts)  # type: ignore[arg-type]
    if runs.sum() != math.prod(size):
        raise ValueError(f"an RLE whose `counts` add up to {runs.sum()}, not to its {size[0]} x {size[1]} pixels")
    return compress_runs(runs, *size) if isinstance(counts, list) else {"size": size, "counts": counts}


def check_rle_parts(parts: list[Any], height: int, width: int) -> RLE:
    """Checks a list of RLEs and polygons, the parts of one object, and returns their union, compressed.

    Args:
        parts: each expected to be an RLE or a polygon [x, y, x, y, ...].
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        ValueError: a part is broken; the message completes "annotation 7 has ...".

    Example:
        >>> from maskrcnn_ext.ops.rle import rle_area
        >>> left, right = {"size": [2, 2], "counts": [0, 2, 2]}, {"size": [2, 2], "counts": [2, 2]}
        >>> rle_area(check_rle_parts([left, right], 2, 2))
        4
    """
    polygons = [part for part in parts if isinstance(part, list)]
    if not all(isinstance(value, int | float) for polygon in polygons for value in polygon):
        raise ValueError("a polygon that is not a list of numbers")
    rles = [check_rle(part, height, width) for part in parts if not isinstance(part, list)]
    return rle_union([*rles, segmentation_to_rle(polygons, height, width)])


def find_broken_rle(rles: Sequence[RLE]) -> int | None:
    """Finds an RLE whose counts are broken or do not cover its size. Thousands take about as long as :func:`check_rle` of a few.

    Args:
        rles: compressed RLEs, each with a valid size.

    Returns:
        The index of a broken RLE; None if all are valid. :func:`check_rle` says what is wrong with it.

    Raises:
        TypeError: an RLE is not compressed.

    Example:
        >>> find_broken_rle([{"size": [2, 2], "counts": "22"}, {"size": [2, 2], "counts": "2"}])
        1
    """
    for start in range(0, len(rles), _BATCH):
        batch = rles[start : start + _BATCH]
        is_broken = _are_broken(
            [counts_text(rle["counts"]) for rle in batch], [math.prod(rle["size"]) for rle in batch]
        )
        if is_broken.any():
            return start + int(is_broken.argmax())
    return None


def decode_counts(counts: list[int] | str | bytes) -> NDArray[np.int64]:
    """Decodes counts to run lengths.

    Args:
        counts: of an RLE, compressed or not.

    Raises:
        ValueError: they are not the counts of an RLE.

    Example:
        >>> decode_counts("22").tolist()
        [2, 2]
    """
    if isinstance(counts, list):
        if not all(isinstance(run, int | float) and 0 <= run < 2**63 and run == run // 1 for run in counts):
            raise ValueError("an RLE whose `counts` are not all whole numbers of at least 0")
        return np.array(counts, np.int64)
    if not isinstance(counts, str | bytes):
        raise ValueError(f"an RLE whose `counts` are of type {type(counts).__name__}, expected a list or a text")
    text = counts_text(counts)
    values = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not text.isascii() or ((values < 0) | (values > 63)).any():
        character = next(letter for letter in text if not "0" <= letter <= "o")
        raise ValueError(f"an RLE whose `counts` are broken: no RLE has the character {character!r}")
    if not len(values) or values[-1] & 32:
        raise ValueError("an RLE whose `counts` are cut off")
    runs, _, lengths = _decode_numbers(values)
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError("an RLE whose `counts` are broken: a run is longer than any image")
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    if (runs < 0).any():
        raise ValueError("an RLE whose `counts` are broken: a run is negative")
    return runs


def _is_side(value: Any) -> bool:
    """Whether a value is a positive whole number of pixels."""
    return isinstance(value, int | float | np.integer) and bool(0 < value < 2**32) and int(value) == value


def _decode_numbers(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Decodes the numbers in compressed counts.

    A character holds 5 bits of a number, the lowest first, and a flag that more follow. The highest bit of the last character is the
    sign. The first three numbers of an RLE are runs, each later one is the difference to the run before the last.

    Args:
        values: the characters' codes minus 48, 0 to 63; the last one ends a number.

    Returns:
        The numbers, the index of each one's last character, and its length in characters.
    """
    ends = np.flatnonzero(values & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    position = np.arange(len(values)) - np.repeat(starts, lengths)
    numbers: NDArray[np.int64] = np.add.reduceat((values & 31) << (5 * position), starts)
    numbers -= np.where(values[ends] & 16, np.int64(1) << (5 * lengths), 0)
    return numbers, ends, lengths


def _are_broken(texts: Sequence[str], num_pixels: Sequence[int]) -> NDArray[np.bool_]:
    """Returns which texts are not the counts of RLEs with so many pixels, (N) bool. Only the first kind of fault is complete."""
    ends_of_texts = np.cumsum([len(text) for text in texts])
    broken = np.array([not text or not text.isascii() for text in texts])
    if broken.any():
        return broken
    values = np.frombuffer("".join(texts).encode("ascii"), np.uint8).astype(np.int64) - 48
    starts_of_texts = np.append(0, ends_of_texts[:-1])
    unknown = (values < 0) | (values > 63)
    unknown[ends_of_texts - 1] |= values[ends_of_texts - 1] & 32 != 0
    broken |= np.logical_or.reduceat(unknown, starts_of_texts)
    if broken.any():
        return broken

    runs, ends, lengths = _decode_numbers(values)
    first_runs = np.searchsorted(ends, starts_of_texts)
    broken |= np.maximum.reduceat(lengths, first_runs) > _LONGEST_NUMBER
    if broken.any():
        return broken
    index = np.arange(runs.size) - np.repeat(first_runs, np.diff(first_runs, append=runs.size))
    for first in (1, 2):
        chosen = (index >= first) & (index % 2 == first % 2)
        sums = np.cumsum(runs[chosen])
        begins = np.flatnonzero(index[chosen] == first)
        before = sums[begins] - runs[chosen][begins]
        runs[chosen] = sums - np.repeat(before, np.diff(begins, append=sums.size))
    return broken | (np.minimum.reduceat(runs, first_runs) < 0) | (np.add.reduceat(runs, first_runs) != num_pixels)
