"""Any data set cut into tiles: ``NAME@tiles:SIDE``, such as ``coco:/data/all.json@/data/rasters@tiles:1024``. Each tile is an image."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from maskrcnn_ext.data.formats.records import Annotation, ImageRecord
from maskrcnn_ext.data.registry.dicts import annotation_from_dict, annotation_to_dict
from maskrcnn_ext.data.registry.source import Source
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.tile_grid import TileGrid

_OPTION = "@tiles:"
_OVERLAP = 0.2  # of neighbouring tiles
_MIN_VISIBLE = 0.3  # of an object's pixels in its best tile, below which a tile shows too little to find it


@dataclass(frozen=True)
class CutIntoTiles:
    """Cuts images into overlapping tiles, as :func:`maskrcnn_ext.get_tiled_dataset_dicts` does, but keeps the empty ones.

    A part of an object that is too small to be found becomes a crowd: it is not trained on, and neither missed nor wrong in an evaluation.

    Attributes:
        side: of the tiles in pixels.
    """

    side: int

    def __call__(self, records: list[ImageRecord]) -> list[ImageRecord]:
        """Returns the tiles, image by image. Images up to the size of a tile stay as they are, except that all ids become texts.

        Raises:
            InputError: an annotation cannot be cut.
        """
        tiles = [tile for record in records for tile in self._cut(record)]
        if len(tiles) == len(records):
            return tiles
        # Those of tiles are texts, and the ids of one data set are of one type.
        return [replace(tile, image_id=str(tile.image_id)) for tile in tiles]

    def _cut(self, record: ImageRecord) -> list[ImageRecord]:
        # Here, because it imports Detectron2, whose hook imports this file.
        from maskrcnn_ext.data.mapping.tile_cuts import cut_annotation

        grid = TileGrid(record.width, record.height, self.side, _OVERLAP)
        if len(grid.windows) == 1:
            return [record]
        shown: list[list[Annotation]] = [[] for _ in grid.windows]
        for number, annotation in enumerate(record.annotations):
            where = f"{record.file_name}: annotation {number}"
            if annotation.points is not None:
                raise InputError(f"{where} has labelled points, which cannot be cut into tiles")
            try:
                views = cut_annotation(annotation_to_dict(annotation), grid)
            except (KeyError, TypeError, ValueError, AssertionError) as error:
                raise InputError(f"{where} cannot be cut ({error})") from error
            most = max((pixels for pixels, _ in views.values()), default=0.0)
            for index, (pixels, view) in views.items():
                part = annotation_from_dict(view, annotation.category + 1, where)
                shown[index].append(replace(part, crowd=part.crowd or pixels < _MIN_VISIBLE * most))
        left, top = record.extra.get("window", (0, 0))[:2]
        return [
            replace(
                record,
                image_id=f"{record.image_id}@{x},{y}",
                height=height,
                width=width,
                annotations=found,
                extra={**record.extra, "window": [left + x, top + y, width, height]},
            )
            for (x, y, width, height), found in zip(grid.windows, shown, strict=True)
        ]


def tiled_name(name: str, side: int) -> str:
    """Returns the name of a data set cut into tiles.

    Example:
        >>> tiled_name("trees_train", 1024)
        'trees_train@tiles:1024'
    """
    return f"{name}{_OPTION}{side}"


def split_tiled_name(name: str) -> tuple[str, int]:
    """Returns the data set of whole images of a name, and the side of the tiles; 0 for a name that does not end with one.

    Raises:
        InputError: the side is no number of pixels.

    Example:
        >>> split_tiled_name("trees_train@tiles:1024"), split_tiled_name("trees_train")
        (('trees_train', 1024), ('trees_train', 0))
    """
    whole, option, side = name.rpartition(_OPTION)
    if not option or "@" in side:
        return name, 0
    if not side.isdecimal() or not int(side):
        raise InputError(f"data set {name}: @tiles:{side} is no side in pixels: write {whole}@tiles:1024")
    return whole, int(side)


def tiled_source(name: str, whole: Source, side: int) -> Source:
    """Returns a data set cut into tiles."""
    return whole.part(name, CutIntoTiles(side))


def tile_of(names: Any) -> int:
    """Returns the side of the tiles of a config's ``dataset.names``; 0 without tiles.

    Example:
        >>> tile_of(["trees_val@tiles:512@list:/data/val.txt"])
        512
    """
    first = names if isinstance(names, str) else next(iter(names or ()), "")
    found = re.search(rf"{_OPTION}([0-9]+)(@|$)", str(first))
    return int(found[1]) if found else 0
