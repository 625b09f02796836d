"""Which pieces of neighbouring tiles are of one object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from maskrcnn_ext.inference.tiling.tile_detections import Piece
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid, Window


class _Link(NamedTuple):
    """Two pieces that agree in what both of their tiles see.

    Attributes:
        is_part: whether the first one is a part of the second rather than the same.
        agreement: IoU of the same, share of a part that is covered.
        first: number of a piece.
        second: number of a piece.
    """

    is_part: bool
    agreement: float
    first: int
    second: int


def group_pieces(tiles: Sequence[list[Piece]], grid: TileGrid, least: float) -> list[list[Piece]]:
    """Groups the pieces of each object, in the order of their first ones.

    Two pieces of the same class are of one object if, within the window that both tiles show, the IoU of their masks is at least
    `least`; or if that share of one which its tile cuts off lies in the other (IoS): a tile may show several parts of an object that
    are connected outside of it. Objects that merely touch share no pixels. Two objects that a tile shows whole stay two, whatever
    other tiles say.

    Args:
        tiles: the pieces of every tile.
        grid: the tiles.
        least: the agreement that it takes, above 0 and up to 1.
    """
    pieces = [piece for own in tiles for piece in own]
    number = {piece: index for index, piece in enumerate(pieces)}
    groups = {index: [piece] for index, piece in enumerate(pieces)}
    group_of = list(range(len(pieces)))
    links = _find_links(tiles, grid, least, number)
    # The same before parts, the surest first.
    for link in sorted(links, key=lambda link: (link.is_part, -link.agreement, link.first, link.second)):
        kept, joined = sorted((group_of[link.first], group_of[link.second]))
        if kept == joined or _are_distinct(groups[kept], groups[joined]):
            continue
        for piece in groups[joined]:
            group_of[number[piece]] = kept
        groups[kept] += groups.pop(joined)
    return list(groups.values())


def _are_distinct(one: list[Piece], other: list[Piece]) -> bool:
    """Whether a tile shows two objects, at least one of them whole, that the groups would make one."""
    tiles = {piece.tile for piece in one} & {piece.tile for piece in other}
    return any(piece.is_whole and piece.tile in tiles for piece in (*one, *other))


def _find_links(
    tiles: Sequence[list[Piece]], grid: TileGrid, least: float, number: dict[Piece, int]
) -> Iterator[_Link]:
    for first_tile, second_tile, shared in grid.pairs():
        first, second = _inside(tiles[first_tile], shared), _inside(tiles[second_tile], shared)
        regions: dict[Piece, Segments] = {}
        parts: dict[int, _Link] = {}  # by piece: a part is of one object
        for one, other in _meeting(first, second):
            for piece in (one, other):
                if piece not in regions:
                    regions[piece] = piece.region(grid).crop(shared)
            areas = regions[one].area(), regions[other].area()
            common = regions[one].overlap(regions[other])
            if not common:
                continue
            iou = common / (sum(areas) - common)
            small, large = (one, other) if areas[0] <= areas[1] else (other, one)
            indices = number[small], number[large]
            if iou >= least:
                yield _Link(False, iou, *indices)
            elif not small.is_whole and common >= least * min(areas):
                link = _Link(True, common / min(areas), *indices)
                parts[indices[0]] = max(link, parts.get(indices[0], link), key=lambda link: link.agreement)
        yield from parts.values()


def _inside(pieces: list[Piece], window: Window) -> list[Piece]:
    x, y, width, height = window
    return [
        piece
        for piece in pieces
        if piece.box[0] < x + width and x < piece.box[2] and piece.box[1] < y + height and y < piece.box[3]
    ]


def _meeting(first: list[Piece], second: list[Piece]) -> Iterator[tuple[Piece, Piece]]:
    """Pairs of the same class whose boxes overlap."""
    if not first or not second:
        return
    one, other = (np.array([piece.box for piece in pieces])[:, None] for pieces in (first, second))
    other = other.swapaxes(0, 1)
    overlap = (one[..., :2] < other[..., 2:]) & (other[..., :2] < one[..., 2:])
    for i, j in np.argwhere(overlap.all(axis=2)).tolist():
        if first[i].result["category_id"] == second[j].result["category_id"]:
            yield first[i], second[j]
