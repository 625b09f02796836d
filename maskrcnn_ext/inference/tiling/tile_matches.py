"""Matches detections of neighbouring tiles that show the same object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from maskrcnn_ext.inference.tiling.tile_detections import TileDetection
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid, Window


class _TileMatch(NamedTuple):
    """Two detections whose masks agree in the window that both tiles show.

    Attributes:
        is_part: whether the first detection is a part of the second, not the same object as a whole.
        agreement: IoU of the masks, or the covered fraction of a part.
        first: index of a detection.
        second: index of a detection.
    """

    is_part: bool
    agreement: float
    first: int
    second: int


def group_tile_detections(
    tiles: Sequence[list[TileDetection]], grid: TileGrid, min_agreement: float
) -> list[list[TileDetection]]:
    """Groups the detections of each object, in the order of their first ones.

    Two detections of one class match if the IoU of their masks, within the window that both tiles show, is at least `min_agreement`. A
    detection that its tile cuts also matches if that fraction of it is inside the other one (IoS): a tile may show several parts of an
    object that are connected outside of it. Objects that merely touch share no pixels. Two objects that one tile shows whole are never
    joined, independently of other tiles.

    Args:
        tiles: the detections of each tile.
        grid: the tiles.
        min_agreement: least IoU or IoS, above 0 and up to 1.
    """
    detections = [detection for tile in tiles for detection in tile]
    index_of = {detection: index for index, detection in enumerate(detections)}
    groups = {index: [detection] for index, detection in enumerate(detections)}
    group_of = list(range(len(detections)))
    matches = _find_tile_matches(tiles, grid, min_agreement, index_of)
    # Whole objects before parts, the best agreement first.
    for match in sorted(matches, key=lambda match: (match.is_part, -match.agreement, match.first, match.second)):
        kept, joined = sorted((group_of[match.first], group_of[match.second]))
        if kept == joined or _are_distinct(groups[kept], groups[joined]):
            continue
        for detection in groups[joined]:
            group_of[index_of[detection]] = kept
        groups[kept] += groups.pop(joined)
    return list(groups.values())


def _are_distinct(one: list[TileDetection], other: list[TileDetection]) -> bool:
    """Whether one tile shows two objects, at least one of them whole, that joining the groups would make one."""
    tiles = {detection.tile for detection in one} & {detection.tile for detection in other}
    return any(detection.is_whole and detection.tile in tiles for detection in (*one, *other))


def _find_tile_matches(
    tiles: Sequence[list[TileDetection]], grid: TileGrid, min_agreement: float, index_of: dict[TileDetection, int]
) -> Iterator[_TileMatch]:
    for first_tile, second_tile, shared in grid.pairs():
        first, second = _overlapping(tiles[first_tile], shared), _overlapping(tiles[second_tile], shared)
        segments: dict[TileDetection, Segments] = {}
        parts: dict[int, _TileMatch] = {}  # best match by index of the part: a part belongs to one object
        for one, other in _overlapping_pairs(first, second):
            for detection in (one, other):
                if detection not in segments:
                    segments[detection] = detection.segments(grid).crop(shared)
            areas = segments[one].area(), segments[other].area()
            common = segments[one].overlap(segments[other])
            if not common:
                continue
            iou = common / (sum(areas) - common)
            small, large = (one, other) if areas[0] <= areas[1] else (other, one)
            indices = index_of[small], index_of[large]
            if iou >= min_agreement:
                yield _TileMatch(False, iou, *indices)
            elif not small.is_whole and common >= min_agreement * min(areas):
                match = _TileMatch(True, common / min(areas), *indices)
                parts[indices[0]] = max(match, parts.get(indices[0], match), key=lambda match: match.agreement)
        yield from parts.values()


def _overlapping(detections: list[TileDetection], window: Window) -> list[TileDetection]:
    """Returns the detections whose boxes overlap a window."""
    x, y, width, height = window
    return [
        detection
        for detection in detections
        if detection.box[0] < x + width
        and x < detection.box[2]
        and detection.box[1] < y + height
        and y < detection.box[3]
    ]


def _overlapping_pairs(
    first: list[TileDetection], second: list[TileDetection]
) -> Iterator[tuple[TileDetection, TileDetection]]:
    """Yields the pairs of one class whose boxes overlap."""
    if not first or not second:
        return
    one, other = (np.array([detection.box for detection in detections])[:, None] for detections in (first, second))
    other = other.swapaxes(0, 1)
    overlap = (one[..., :2] < other[..., 2:]) & (other[..., :2] < one[..., 2:])
    for i, j in np.argwhere(overlap.all(axis=2)).tolist():
        if first[i].result["category_id"] == second[j].result["category_id"]:
            yield first[i], second[j]
