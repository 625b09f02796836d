"""What one tile shows of an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from maskrcnn_ext.ops.rle import rle_box
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid

Box = tuple[float, float, float, float]

# A model's masks and boxes end a little before the tile does, or reach it from a little within.
EDGE = 3


@dataclass(eq=False, slots=True)
class Piece:
    """A detection in a tile.

    Attributes:
        tile: index of the tile.
        result: as COCO's results hold it, in pixels of the tile.
        box: (x0, y0, x1, y1) around box and mask, in pixels of the image.
        clearance: how far the box stays from where the tile cuts the image, in pixels.
    """

    tile: int
    result: dict[str, Any]
    box: Box
    clearance: float

    @property
    def is_whole(self) -> bool:
        """Whether the tile seems to show all of the object."""
        return self.clearance > EDGE

    def region(self, grid: TileGrid) -> Segments:
        """The pixels of the mask, or of the box where there is none, in pixels of the image."""
        if "segmentation" not in self.result:
            x0, y0, x1, y1 = self.box
            return Segments.of_box(max(floor(x0), 0), max(floor(y0), 0), ceil(x1), ceil(y1))
        x, y, _, _ = grid.windows[self.tile]
        return Segments.from_rle(self.result["segmentation"]).shift(x, y)


def make_pieces(tiles: Sequence[list[dict[str, Any]]], grid: TileGrid) -> list[list[Piece]]:
    """Returns the pieces of every tile.

    Left out are empty masks, and what is cut off at a tile's edge without reaching its core: a margin of an object that another tile
    shows with more around it.

    Args:
        tiles: COCO's results of every tile, in its pixels.
        grid: the tiles.
    """
    return [
        [piece for result in results if (piece := _make_piece(index, result, grid)) is not None]
        for index, results in enumerate(tiles)
    ]


def _make_piece(tile: int, result: dict[str, Any], grid: TileGrid) -> Piece | None:
    x, y, _, _ = grid.windows[tile]
    left, top, width, height = result["bbox"]
    right, bottom = left + width, top + height
    if "segmentation" in result:
        mask_box = rle_box(result["segmentation"])
        if not any(mask_box):
            return None
        left, top = min(left, mask_box[0]), min(top, mask_box[1])
        right, bottom = max(right, mask_box[2]), max(bottom, mask_box[3])
    box = (x + left, y + top, x + right, y + bottom)
    piece = Piece(tile, result, box, grid.clearance(tile, box))
    core_x, core_y, core_width, core_height = grid.cores[tile]
    is_in_core = box[0] < core_x + core_width and core_x < box[2] and box[1] < core_y + core_height and core_y < box[3]
    return piece if piece.is_whole or is_in_core else None
