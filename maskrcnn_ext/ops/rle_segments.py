"""Masks as vertical segments of pixels: run lengths that are not tied to an image size, so they can be shifted, cropped and joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn_ext.ops.rle import RLE, encode_edges
from maskrcnn_ext.ops.rle_checks import decode_counts

# The pixel (x, y) has the position x * _COLUMN + y: segments of neighbouring columns never touch.
_COLUMN = 2**31


@dataclass(frozen=True, slots=True)
class Segments:
    """A mask as S segments, each within one column, with coordinates from 0 to 2**31 - 1. The image's size is not stored.

    Time and memory depend only on the outline of the mask: a column has one segment for each time that it enters the mask.

    Attributes:
        starts: (S) int64, ascending: x * 2**31 + y of the uppermost pixel of a segment.
        ends: (S) int64, one past the lowest pixel of a segment.

    Example:
        >>> left, right = Segments.of_box(0, 0, 2, 2), Segments.of_box(1, 0, 3, 2)
        >>> Segments.union([left, right]).box(), left.overlap(right)
        ((0, 0, 3, 2), 2)
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @staticmethod
    def from_rle(rle: RLE) -> Segments:
        """Converts an RLE, compressed or not, to the segments of its mask, in pixels of its image.

        Raises:
            ValueError: its counts are broken or do not cover its size.
        """
        height, width = (int(side) for side in rle["size"])
        edges = np.cumsum(decode_counts(rle["counts"]))
        if (edges[-1] if len(edges) else 0) != height * width:
            raise ValueError(f"an RLE whose `counts` do not cover its {height} x {width} pixels")
        starts, ends = edges[:-1:2], edges[1::2]
        starts, ends = starts[starts < ends], ends[starts < ends]
        if not len(starts):
            return Segments(starts, ends)
        # A run that reaches the bottom of a column continues at the top of the next one.
        first, last = starts // height, (ends - 1) // height
        parts = last - first + 1
        run = np.repeat(np.arange(len(starts)), parts)
        column = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(parts) - parts, parts)
        top = np.maximum(starts[run] - column * height, 0)
        bottom = np.minimum(ends[run] - column * height, height)
        return Segments(column * _COLUMN + top, column * _COLUMN + bottom)

    @staticmethod
    def of_box(x0: int, y0: int, x1: int, y1: int) -> Segments:
        """Returns the mask of a rectangle; x1 and y1 are exclusive."""
        columns = np.arange(x0, x1 if y0 < y1 else x0, dtype=np.int64) * _COLUMN
        return Segments(columns + y0, columns + y1)

    @staticmethod
    def of_window(mask: NDArray[np.bool_], x: int, y: int) -> Segments:
        """Returns the mask whose part in a window is given, empty outside of it.

        Args:
            mask: (height, width) of the window, bool.
            x: left edge of the window in pixels of the image.
            y: upper edge.

        Example:
            >>> Segments.of_window(np.array([[True, False], [True, True]]), x=5, y=7).box()
            (5, 7, 7, 9)
        """
        changes = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
        # A column has as many starts as ends, in the same order.
        starts, ends = np.nonzero(changes == 1), np.nonzero(changes == -1)
        return Segments(*((columns + x) * _COLUMN + rows + y for columns, rows in (starts, ends)))

    @staticmethod
    def union(masks: Sequence[Segments]) -> Segments:
        """Returns the union of one or more masks."""
        starts = np.concatenate([mask.starts for mask in masks])
        order = np.argsort(starts, kind="stable")
        starts = starts[order]
        ends = np.maximum.accumulate(np.concatenate([mask.ends for mask in masks])[order])
        if not len(starts):
            return Segments(starts, ends)
        is_new = np.append(True, starts[1:] > ends[:-1])
        return Segments(starts[is_new], ends[np.append(is_new[1:], True)])

    def area(self) -> int:
        """Returns the number of pixels."""
        return int((self.ends - self.starts).sum())

    def overlap(self, other: Segments) -> int:
        """Returns the number of pixels that both masks contain."""
        return self.area() + other.area() - Segments.union([self, other]).area()

    def shift(self, dx: int, dy: int) -> Segments:
        """Returns the mask moved by (dx, dy); no coordinate may become negative."""
        return Segments(self.starts + (dx * _COLUMN + dy), self.ends + (dx * _COLUMN + dy))

    def crop(self, window: tuple[int, int, int, int]) -> Segments:
        """Returns the part inside a window (x, y, width, height), in the same coordinates."""
        _, y, _, height = window
        inside = self._in_columns(window)
        column = self.starts[inside] & -_COLUMN
        return _drop_empty(
            np.maximum(self.starts[inside], column + y), np.minimum(self.ends[inside], column + y + height)
        )

    def without(self, window: tuple[int, int, int, int]) -> Segments:
        """Returns the part outside a window (x, y, width, height)."""
        _, y, _, height = window
        inside = self._in_columns(window)
        starts, ends = self.starts[inside], self.ends[inside]
        column = starts & -_COLUMN
        above = _drop_empty(starts, np.minimum(ends, column + y))
        below = _drop_empty(np.maximum(starts, column + y + height), ends)
        left = Segments(self.starts[: inside.start], self.ends[: inside.start])
        right = Segments(self.starts[inside.stop :], self.ends[inside.stop :])
        return Segments.union([left, above, below, right])

    def box(self) -> tuple[int, int, int, int]:
        """Returns the tight box (x0, y0, x1, y1), x1 and y1 exclusive; zeros for an empty mask."""
        if not len(self.starts):
            return 0, 0, 0, 0
        tops, bottoms = self.starts & (_COLUMN - 1), self.ends & (_COLUMN - 1)
        return int(self.starts[0] // _COLUMN), int(tops.min()), int(self.starts[-1] // _COLUMN) + 1, int(bottoms.max())

    def to_rle(self, size: tuple[int, int]) -> RLE:
        """Returns a compressed RLE, its counts as bytes.

        Args:
            size: height and width of an image that contains the mask and has fewer than 2**32 pixels.
        """
        column = self.starts // _COLUMN
        edges = np.stack([self.starts, self.ends], axis=1) - (column * (_COLUMN - size[0]))[:, None]
        return encode_edges(edges.ravel(), size)

    def _in_columns(self, window: tuple[int, int, int, int]) -> slice:
        """Returns the segments in the columns of a window."""
        x, _, width, _ = window
        first, end = np.searchsorted(self.starts, [x * _COLUMN, (x + width) * _COLUMN])
        return slice(int(first), int(end))


def _drop_empty(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Segments:
    """Returns the segments that have a pixel."""
    kept = starts < ends
    return Segments(starts[kept], ends[kept])


def rle_window(rle: RLE, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
    """Decodes a window of a mask. Time and memory depend on the window and the outline of the mask, not on the image.

    Args:
        rle: an RLE, compressed or not.
        x0: left edge of the window in pixels of the image.
        y0: upper edge.
        x1: right edge, exclusive.
        y1: lower edge, exclusive.

    Returns:
        (y1 - y0, x1 - x0) uint8, 0 or 1.

    Example:
        >>> rle_window({"size": [2, 2], "counts": "22"}, x0=0, y0=0, x1=2, y1=1).tolist()
        [[0, 1]]
    """
    part = Segments.from_rle(rle).crop((x0, y0, x1 - x0, y1 - y0))
    changes = np.zeros((x1 - x0, y1 - y0 + 1), np.int8)
    columns = part.starts // _COLUMN - x0
    np.add.at(changes, (columns, part.starts % _COLUMN - y0), 1)
    np.add.at(changes, (columns, part.ends % _COLUMN - y0), -1)
    mask = changes[:, :-1].cumsum(axis=1, dtype=np.int8).view(np.uint8)
    return np.ascontiguousarray(mask.T)
