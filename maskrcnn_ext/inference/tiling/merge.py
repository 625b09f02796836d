"""Merges the detections of all tiles into the objects of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn_ext.inference.tiling.tile_detections import EDGE_TOLERANCE, Box, TileDetection, make_tile_detections
from maskrcnn_ext.inference.tiling.tile_matches import group_tile_detections
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid


def merge_tiles(tiles: Sequence[list[dict[str, Any]]], grid: TileGrid, agreement: float = 0.5) -> list[dict[str, Any]]:
    """Merges the results of tiles into those of the image.

    If a tile shows an object whole, its detection is the result; among several, that of the tile with most margin around the object.
    Other objects are assembled: each pixel is decided by the tile with most margin around it, among those that detected the object. The
    score is the highest of the detections.

    Args:
        tiles: COCO results of each tile, in its pixels; boxes replace masks if ``segmentation`` is missing.
        grid: the tiles.
        agreement: least IoU of the masks of two tiles in their overlap, or covered fraction of a part, for one object.

    Returns:
        COCO results in pixels of the image, the highest score first.

    Example:
        >>> grid = TileGrid(width=100, height=50, tile=60, overlap=0.2)
        >>> left = {"bbox": [40, 10, 20, 20], "score": 0.9, "category_id": 0}
        >>> right = {"bbox": [0, 10, 30, 20], "score": 0.8, "category_id": 0}
        >>> [(result["bbox"], result["score"]) for result in merge_tiles([[left], [right]], grid)]
        [([40, 10, 30, 20], 0.9)]
    """
    groups = group_tile_detections(make_tile_detections(tiles, grid), grid, agreement)
    results = [_merge_group(group, grid) for group in groups]
    return sorted(results, key=lambda result: -result["score"])


def _merge_group(group: list[TileDetection], grid: TileGrid) -> dict[str, Any]:
    hull = _hull(group)
    candidates = [detection for detection in group if detection.is_whole and _is_in_tile(hull, detection.tile, grid)]
    if len(group) == 1 or candidates:
        best = max(candidates or group, key=lambda detection: _view_quality(detection, grid))
        result = _in_image(best, grid)
        if "segmentation" in result:
            result["segmentation"] = _encode_rle(best.segments(grid), grid)
    else:
        result = _assemble(group, hull, grid)
    result["score"] = max(detection.result["score"] for detection in group)
    return result


def _view_quality(detection: TileDetection, grid: TileGrid) -> tuple[float, float]:
    """Returns a sort key of how well a tile shows an object: the margin around it, up to half the overlap, then its score."""
    return min(detection.clearance, grid.overlap / 2), detection.result["score"]


def _assemble(group: list[TileDetection], hull: Box, grid: TileGrid) -> dict[str, Any]:
    """Joins the detections of an object that no tile shows whole."""
    result = _in_image(max(group, key=lambda detection: detection.result["score"]), grid)
    if "segmentation" in result:
        tiles = {detection.tile for detection in group}
        joined = Segments.union([_best_seen_segments(detection, tiles, grid) for detection in group])
        if not joined.area():  # each tile detected it only where another one sees more
            joined = Segments.union([detection.segments(grid) for detection in group])
        result["segmentation"] = _encode_rle(joined, grid)
        hull = joined.box()
    result["bbox"] = [hull[0], hull[1], hull[2] - hull[0], hull[3] - hull[1]]
    if "keypoints" in result:
        points = np.array([_in_image(detection, grid)["keypoints"] for detection in group]).reshape(len(group), -1, 3)
        most_confident = points[:, :, 2].argmax(axis=0)
        result["keypoints"] = points[most_confident, np.arange(len(most_confident))].ravel().tolist()
    return result


def _best_seen_segments(detection: TileDetection, tiles: set[int], grid: TileGrid) -> Segments:
    """Returns the pixels of a detection where none of the other tiles has more margin."""
    segments = detection.segments(grid)
    for tile in tiles.intersection(grid.meeting(detection.box)) - {detection.tile}:
        segments = segments.without(grid.cores[tile])
    return segments


def _in_image(detection: TileDetection, grid: TileGrid) -> dict[str, Any]:
    """Returns the result of a detection with box and keypoints in pixels of the image; the mask stays that of the tile."""
    x, y, _, _ = grid.windows[detection.tile]
    left, top, width, height = detection.result["bbox"]
    result = {**detection.result, "bbox": [left + x, top + y, width, height]}
    if "keypoints" in result:
        result["keypoints"] = (np.reshape(result["keypoints"], (-1, 3)) + np.array([x, y, 0])).ravel().tolist()
    return result


def _encode_rle(segments: Segments, grid: TileGrid) -> dict[str, Any]:
    rle = segments.to_rle((grid.height, grid.width))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _hull(group: list[TileDetection]) -> Box:
    x0, y0, x1, y1 = zip(*(detection.box for detection in group), strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _is_in_tile(box: Box, tile: int, grid: TileGrid) -> bool:
    """Whether a tile shows a box, within the edge tolerance."""
    x, y, width, height = grid.windows[tile]
    margin = EDGE_TOLERANCE
    return (
        box[0] >= x - margin and box[1] >= y - margin and box[2] <= x + width + margin and box[3] <= y + height + margin
    )
