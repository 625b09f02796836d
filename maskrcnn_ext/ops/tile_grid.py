"""Divides a large image into overlapping tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from maskrcnn_ext.common.ranges import is_at_least, is_share
from maskrcnn_ext.errors import InputError

# x, y, width, height in pixels of the image.
Window = tuple[int, int, int, int]

# With fewer shared pixels, two tiles cannot show whether they see the same object.
_LEAST_OVERLAP = 8


class TileGrid:
    """Tiles of one size that cover an image, row by row and evenly spaced. Neighbours share at least the requested overlap.

    If a side of the image is shorter than a tile, tiles are as long as that side.

    Attributes:
        width: width of the image in pixels.
        height: height of the image in pixels.
        overlap: smallest number of pixels that neighbours share across a seam.
        windows: the tiles.
        cores: the core of each tile, which ends in the middle of the area shared with a neighbour. Each pixel of the image is in exactly
            one core.
    """

    def __init__(self, width: int, height: int, tile: int, overlap: float) -> None:
        """Divides an image.

        Args:
            width: in pixels.
            height: in pixels.
            tile: side of a tile in pixels.
            overlap: overlap of neighbouring tiles as a fraction of their side.

        Raises:
            InputError: `tile` or `overlap` is out of range.
        """
        if not is_share(overlap, above_zero=True) or overlap == 1:
            raise InputError(f"overlap={overlap}: expected a fraction of the tile, above 0 and below 1, such as 0.2")
        if not is_at_least(tile, 1):
            raise InputError(f"tile={tile}: expected the side of a tile in pixels, such as 1024")
        self.overlap = shared = round(tile * overlap)
        if not _LEAST_OVERLAP <= shared < tile:
            raise InputError(
                f"tile={tile} with overlap={overlap}: neighbours would share {shared} pixels, expected at least {_LEAST_OVERLAP}, and a "
                "larger tile"
            )
        self.width, self.height = width, height
        self._side = tile
        self._xs, self._ys = _starts(width, tile, shared), _starts(height, tile, shared)
        tile_width, tile_height = min(tile, width), min(tile, height)
        self.windows: list[Window] = [(x, y, tile_width, tile_height) for y in self._ys for x in self._xs]
        columns, rows = _core_edges(self._xs, width, tile), _core_edges(self._ys, height, tile)
        self.cores: list[Window] = [
            (left, top, right - left, bottom - top)
            for top, bottom in pairwise(rows)
            for left, right in pairwise(columns)
        ]

    def clearance(self, index: int, box: tuple[float, float, float, float]) -> float:
        """Returns the distance in pixels of a box from the edges at which a tile cuts the image; infinity if it cuts nothing.

        Args:
            index: index of the tile.
            box: (x0, y0, x1, y1) in pixels of the image.
        """
        x, y, width, height = self.windows[index]
        distances = [
            distance
            for distance, is_cut in (
                (box[0] - x, x > 0),
                (box[1] - y, y > 0),
                (x + width - box[2], x + width < self.width),
                (y + height - box[3], y + height < self.height),
            )
            if is_cut
        ]
        return min(distances, default=float("inf"))

    def meeting(self, box: Sequence[float]) -> list[int]:
        """Returns the indices of the tiles that overlap a box (x0, y0, x1, y1), in pixels of the image."""
        columns = _meeting(self._xs, self._side, box[0], box[2])
        return [
            row * len(self._xs) + column for row in _meeting(self._ys, self._side, box[1], box[3]) for column in columns
        ]

    def pairs(self) -> Iterator[tuple[int, int, Window]]:
        """Yields the indices of two overlapping tiles, in ascending order, and the window that they share."""
        for index, window in enumerate(self.windows):
            x, y, width, height = window
            for other in self.meeting((x, y, x + width, y + height)):
                if other > index:
                    yield index, other, _shared(window, self.windows[other])


def _shared(one: Window, other: Window) -> Window:
    """Returns the intersection of two overlapping windows."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[0] + one[2], other[0] + other[2]), min(one[1] + one[3], other[1] + other[3])
    return left, top, right - left, bottom - top


def _meeting(starts: list[int], tile: int, low: float, high: float) -> list[int]:
    """Returns the indices of the tiles of a row or column that overlap an interval."""
    return [index for index, start in enumerate(starts) if start < high and low < start + tile]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    steps = -(-(length - tile) // (tile - overlap))
    return [0] if steps < 1 else [step * (length - tile) // steps for step in range(steps + 1)]


def _core_edges(starts: list[int], length: int, tile: int) -> list[int]:
    """Returns where the cores start, and where the last one ends."""
    middles = [(before + tile + start) // 2 for before, start in pairwise(starts)]
    return [0, *middles, length]
