"""From what the tiles show to the objects of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn_ext.inference.tiling.tile_detections import EDGE, Box, Piece, make_pieces
from maskrcnn_ext.inference.tiling.tile_matches import group_pieces
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid


def merge_tiles(tiles: Sequence[list[dict[str, Any]]], grid: TileGrid, agreement: float = 0.5) -> list[dict[str, Any]]:
    """Merges the results of tiles into those of the image.

    Of an object that a tile shows whole, the result is the one of the tile that shows most around it. Others are put together: each
    pixel is decided by the tile that sees most around it, among those that have found the object. The score is the highest.

    Args:
        tiles: COCO's results of every tile, in its pixels; ``segmentation`` may be missing, and boxes then take the place of masks.
        grid: the tiles.
        agreement: least IoU, or covered share of a part, of two tiles' masks in what both tiles see, for them to be of one object.

    Returns:
        COCO's results in pixels of the image, those with the highest score first.
    """
    groups = group_pieces(make_pieces(tiles, grid), grid, agreement)
    results = [_merge(group, grid) for group in groups]
    return sorted(results, key=lambda result: -result["score"])


def _merge(group: list[Piece], grid: TileGrid) -> dict[str, Any]:
    hull = _hull(group)
    candidates = [piece for piece in group if piece.is_whole and _is_in_tile(hull, piece.tile, grid)]
    if len(group) == 1 or candidates:
        best = max(candidates or group, key=lambda piece: _view(piece, grid))
        result = _moved(best, grid)
        if "segmentation" in result:
            result["segmentation"] = _rle(best.region(grid), grid)
    else:
        result = _assembled(group, hull, grid)
    result["score"] = max(piece.result["score"] for piece in group)
    return result


def _view(piece: Piece, grid: TileGrid) -> tuple[float, float]:
    """How well a tile shows an object: by what it sees around it, up to an overlap's half, and by its score."""
    return min(piece.clearance, grid.overlap / 2), piece.result["score"]


def _assembled(group: list[Piece], hull: Box, grid: TileGrid) -> dict[str, Any]:
    result = _moved(max(group, key=lambda piece: piece.result["score"]), grid)
    if "segmentation" in result:
        tiles = {piece.tile for piece in group}
        joined = Segments.union([_seen_best(piece, tiles, grid) for piece in group])
        if not joined.area():  # each tile has found it only where another one sees more
            joined = Segments.union([piece.region(grid) for piece in group])
        result["segmentation"] = _rle(joined, grid)
        hull = joined.box()
    result["bbox"] = [hull[0], hull[1], hull[2] - hull[0], hull[3] - hull[1]]
    if "keypoints" in result:
        points = np.array([_moved(piece, grid)["keypoints"] for piece in group]).reshape(len(group), -1, 3)
        surest = points[:, :, 2].argmax(axis=0)
        result["keypoints"] = points[surest, np.arange(len(surest))].ravel().tolist()
    return result


def _seen_best(piece: Piece, tiles: set[int], grid: TileGrid) -> Segments:
    """What lies of a piece where none of the other tiles sees more."""
    region = piece.region(grid)
    for tile in tiles.intersection(grid.meeting(piece.box)) - {piece.tile}:
        region = region.without(grid.cores[tile])
    return region


def _moved(piece: Piece, grid: TileGrid) -> dict[str, Any]:
    """The result of a piece in pixels of the image, but for its mask."""
    x, y, _, _ = grid.windows[piece.tile]
    left, top, width, height = piece.result["bbox"]
    result = {**piece.result, "bbox": [left + x, top + y, width, height]}
    if "keypoints" in result:
        result["keypoints"] = (np.reshape(result["keypoints"], (-1, 3)) + np.array([x, y, 0])).ravel().tolist()
    return result


def _rle(region: Segments, grid: TileGrid) -> dict[str, Any]:
    rle = region.to_rle((grid.height, grid.width))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _hull(group: list[Piece]) -> Box:
    x0, y0, x1, y1 = zip(*(piece.box for piece in group), strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _is_in_tile(box: Box, tile: int, grid: TileGrid) -> bool:
    """Whether a tile shows a box, all but a little."""
    x, y, width, height = grid.windows[tile]
    return box[0] >= x - EDGE and box[1] >= y - EDGE and box[2] <= x + width + EDGE and box[3] <= y + height + EDGE
