"""The detections of single tiles, placed in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from maskrcnn_ext.ops.rle import rle_box
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid

Box = tuple[float, float, float, float]

# Pixels by which a model's boxes and masks of a cut object may end before the edge of the tile.
EDGE_TOLERANCE = 3


@dataclass(eq=False, slots=True)
class TileDetection:
    """A detection in a tile.

    Attributes:
        tile: index of the tile.
        result: COCO result, in pixels of the tile.
        box: (x0, y0, x1, y1) around box and mask, in pixels of the image.
        clearance: distance in pixels from the box to the nearest edge where the tile cuts the image.
    """

    tile: int
    result: dict[str, Any]
    box: Box
    clearance: float

    @property
    def is_whole(self) -> bool:
        """Whether the tile seems to show the whole object."""
        return self.clearance > EDGE_TOLERANCE

    def segments(self, grid: TileGrid) -> Segments:
        """Returns the pixels of the mask, or of the box if there is no mask, in pixels of the image."""
        if "segmentation" not in self.result:
            x0, y0, x1, y1 = self.box
            return Segments.of_box(max(floor(x0), 0), max(floor(y0), 0), ceil(x1), ceil(y1))
        x, y, _, _ = grid.windows[self.tile]
        return Segments.from_rle(self.result["segmentation"]).shift(x, y)


def make_tile_detections(tiles: Sequence[list[dict[str, Any]]], grid: TileGrid) -> list[list[TileDetection]]:
    """Returns the detections of each tile.

    Leaves out empty masks, and detections that are cut by the tile's edge and do not reach its core: another tile shows more of the
    object.

    Args:
        tiles: COCO results of each tile, in its pixels.
        grid: the tiles.

    Example:
        >>> grid = TileGrid(width=100, height=50, tile=60, overlap=0.2)
        >>> box = {"bbox": [10, 10, 20, 20], "score": 0.9, "category_id": 0}
        >>> [[detection.box for detection in tile] for tile in make_tile_detections([[box], [box]], grid)]
        [[(10, 10, 30, 30)], [(50, 10, 70, 30)]]
    """
    return [
        [detection for result in results if (detection := _make_tile_detection(index, result, grid)) is not None]
        for index, results in enumerate(tiles)
    ]


def _make_tile_detection(tile: int, result: dict[str, Any], grid: TileGrid) -> TileDetection | None:
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
    detection = TileDetection(tile, result, box, grid.clearance(tile, box))
    core_x, core_y, core_width, core_height = grid.cores[tile]
    is_in_core = box[0] < core_x + core_width and core_x < box[2] and box[1] < core_y + core_height and core_y < box[3]
    return detection if detection.is_whole or is_in_core else None
