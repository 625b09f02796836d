"""Masks as upright segments of pixels: COCO's run lengths, but free of an image, so that they can be moved, cut and joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn_ext.ops.mask_paste import encode_outline

# Where a pixel stands: x * _COLUMN + y. Columns are so far apart that no segment meets the next one's.
_COLUMN = 2**31


@dataclass(frozen=True, slots=True)
class Segments:
    """The pixels of a mask, each once, column by column, in coordinates from 0 to 2**31 - 1 of an image whose size is not said.

    Time and memory depend on the mask's outline alone: S is about its width, for each time that a column enters it.

    Attributes:
        starts: (S) int64, ascending, x * 2**31 + y of the uppermost pixel of a segment.
        ends: (S) int64, one behind the lowest pixel in the same column.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @staticmethod
    def from_rle(rle: dict[str, Any]) -> Segments:
        """Reads a COCO RLE, compressed or not, in the coordinates of its image.

        Raises:
            ValueError: its counts do not cover its size.
        """
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        runs = np.array(counts, np.int64) if isinstance(counts, list) else _decode(counts)
        edges = np.cumsum(runs)
        if (runs < 0).any() or (edges[-1] if len(edges) else 0) != height * width:
            raise ValueError("an RLE whose `counts` do not cover its `size`")
        starts, ends = edges[:-1:2], edges[1::2]
        starts, ends = starts[starts < ends], ends[starts < ends]
        if not len(starts):
            return Segments(starts, ends)
        # A run goes on at the top of the next column.
        first, last = starts // height, (ends - 1) // height
        parts = last - first + 1
        run = np.repeat(np.arange(len(starts)), parts)
        column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(parts) - parts, parts)
        top = np.maximum(starts[run] - column * height, 0)
        bottom = np.minimum(ends[run] - column * height, height)
        return Segments(column * _COLUMN + top, column * _COLUMN + bottom)

    @staticmethod
    def of_box(x0: int, y0: int, x1: int, y1: int) -> Segments:
        """The pixels of a rectangle; x1 and y1 are exclusive."""
        columns = np.arange(x0, x1 if y0 < y1 else x0, dtype=np.int64) * _COLUMN
        return Segments(columns + y0, columns + y1)

    @staticmethod
    def union(masks: Sequence[Segments]) -> Segments:
        """The pixels of any of at least one mask."""
        starts = np.concatenate([mask.starts for mask in masks])
        order = np.argsort(starts, kind="stable")
        starts = starts[order]
        ends = np.maximum.accumulate(np.concatenate([mask.ends for mask in masks])[order])
        if not len(starts):
            return Segments(starts, ends)
        is_new = np.append(True, starts[1:] > ends[:-1])
        return Segments(starts[is_new], ends[np.append(is_new[1:], True)])

    def area(self) -> int:
        """The number of pixels."""
        return int((self.ends - self.starts).sum())

    def overlap(self, other: Segments) -> int:
        """The number of pixels of both."""
        return self.area() + other.area() - Segments.union([self, other]).area()

    def shift(self, dx: int, dy: int) -> Segments:
        """Moves the mask; no coordinate may become negative."""
        return Segments(self.starts + (dx * _COLUMN + dy), self.ends + (dx * _COLUMN + dy))

    def crop(self, window: tuple[int, int, int, int]) -> Segments:
        """What lies in a window (x, y, width, height); not moved."""
        _, y, _, height = window
        inside = self._columns(window)
        column = self.starts[inside] & -_COLUMN
        return _not_empty(
            np.maximum(self.starts[inside], column + y), np.minimum(self.ends[inside], column + y + height)
        )

    def without(self, window: tuple[int, int, int, int]) -> Segments:
        """What lies outside of a window (x, y, width, height)."""
        _, y, _, height = window
        inside = self._columns(window)
        starts, ends = self.starts[inside], self.ends[inside]
        column = starts & -_COLUMN
        above = _not_empty(starts, np.minimum(ends, column + y))
        below = _not_empty(np.maximum(starts, column + y + height), ends)
        left = Segments(self.starts[: inside.start], self.ends[: inside.start])
        right = Segments(self.starts[inside.stop :], self.ends[inside.stop :])
        return Segments.union([left, above, below, right])

    def box(self) -> tuple[int, int, int, int]:
        """The tight box (x0, y0, x1, y1), x1 and y1 exclusive; zeros for an empty mask."""
        if not len(self.starts):
            return 0, 0, 0, 0
        tops, bottoms = self.starts & (_COLUMN - 1), self.ends & (_COLUMN - 1)
        return int(self.starts[0] // _COLUMN), int(tops.min()), int(self.starts[-1] // _COLUMN) + 1, int(bottoms.max())

    def to_rle(self, size: tuple[int, int]) -> dict[str, Any]:
        """A compressed RLE, its counts as bytes.

        Args:
            size: height and width of an image of fewer than 2**32 pixels that holds the mask.
        """
        column = self.starts // _COLUMN
        edges = np.stack([self.starts, self.ends], axis=1) - (column * (_COLUMN - size[0]))[:, None]
        return encode_outline(edges.ravel(), size)

    def _columns(self, window: tuple[int, int, int, int]) -> slice:
        """The segments in the columns of a window."""
        x, _, width, _ = window
        first, end = np.searchsorted(self.starts, [x * _COLUMN, (x + width) * _COLUMN])
        return slice(int(first), int(end))


def _not_empty(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Segments:
    kept = starts < ends
    return Segments(starts[kept], ends[kept])


def _decode(text: bytes | str) -> NDArray[np.int64]:
    """The runs of compressed counts.

    A letter holds 5 bits of a number, the lowest first, and whether more follow; the last one's highest bit is the sign. A number is a
    run, from the fourth on its difference to the run before the last.
    """
    letters = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(letters & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    if (
        not len(letters)
        or ends[-1:].tolist() != [len(letters) - 1]
        or ((letters < 0) | (letters > 63)).any()
        or lengths.max() > 7
    ):
        raise ValueError("an RLE whose `counts` are no such")
    begins = ends - lengths + 1
    place = np.arange(len(letters)) - np.repeat(begins, lengths)
    runs: NDArray[np.int64] = np.add.reduceat((letters & 31) << (5 * place), begins)
    runs -= np.where(letters[ends] & 16, np.int64(1) << (5 * lengths), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs
