"""Training on tiles of large images: ``dataloader.train.dataset._target_=maskrcnn_ext.get_tiled_dataset_dicts``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from maskrcnn_ext.common.ranges import is_share
from maskrcnn_ext.data.mapping.tile_cuts import cut_annotation
from maskrcnn_ext.data.registry.catalog import get_dataset_dicts
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.tile_grid import TileGrid

logger = logging.getLogger(__name__)

Record = dict[str, Any]


def get_tiled_dataset_dicts(
    names: str | Sequence[str],
    tile: int = 1024,
    overlap: float = 0.2,
    min_visible: float = 0.3,
    empty_share: float = 0.1,
    filter_empty: bool = True,
    min_keypoints: int = 0,
    classes: str | Sequence[str] | None = None,
) -> list[Record]:
    """Returns the records of :func:`get_dataset_dicts` with every image cut into overlapping tiles.

    Each record has a ``window``, the part of the file that :class:`maskrcnn_ext.SafeMapper` reads. Of a TIFF, a NumPy array or a
    photograph of more than 67 million pixels only that part is decoded; other files are decoded whole for every tile. The ``image_id`` is
    ``<id>@<x>,<y>``. Images up to the size of a tile are not cut.

    Args:
        names: as for :func:`get_dataset_dicts`.
        tile: side of the tiles in pixels.
        overlap: of neighbouring tiles, as a share of the side.
        min_visible: an object is dropped from a tile that shows less than this share of the pixels that its best tile shows. For objects
            smaller than the overlap, this is the share of the object. An object larger than a tile is in every tile that shows enough.
        empty_share: the share of all tiles that may be empty; the choice is reproducible. 0 drops empty tiles, 1 keeps all.
        filter_empty: drop images without objects.
        min_keypoints: drop tiles with fewer visible keypoints.
        classes: as for :func:`get_dataset_dicts`.

    Raises:
        InputError: as for :func:`get_dataset_dicts`; an argument is out of range, or a record cannot be cut.

    Example:
        As an override of any LazyConfig::

            dataloader.train.dataset._target_=maskrcnn_ext.get_tiled_dataset_dicts dataloader.train.dataset.tile=1024
    """
    for name, share in (("min_visible", min_visible), ("empty_share", empty_share)):
        if not is_share(share):
            raise InputError(f"{name}={share}: expected a share from 0 to 1")
    records = get_dataset_dicts(names, filter_empty=filter_empty, classes=classes)
    tiles: list[Record] = []
    empty: list[int] = []
    for record in records:
        for found, is_empty in _cut_record(record, tile, overlap, min_visible):
            if is_empty:
                empty.append(len(tiles))
            tiles.append(found)
    with_objects = len(tiles) - len(empty)
    wanted = len(empty) if empty_share == 1 else round(with_objects * empty_share / (1 - empty_share))
    unwanted = set(sorted(empty, key=lambda index: _pseudo_random_key(tiles[index]))[wanted:])
    kept = [found for index, found in enumerate(tiles) if index not in unwanted]
    if min_keypoints > 0:
        from detectron2.data.build import filter_images_with_few_keypoints

        kept = filter_images_with_few_keypoints(kept, min_keypoints)
    if not kept:
        raise InputError(f"data set {names}: no tile with an object is left (empty_share=1 keeps those without)")
    logger.info(
        "%d images in %d tiles: %d with objects, %d of %d without",
        *(len(records), len(kept), with_objects, min(wanted, len(empty)), len(empty)),
    )
    return kept


def _pseudo_random_key(record: Record) -> bytes:
    """Returns a sort key that depends on the image id only, so that every process chooses the same tiles."""
    return hashlib.blake2b(str(record["image_id"]).encode("utf-8", "surrogatepass")).digest()


def _cut_record(record: Record, tile: int, overlap: float, min_visible: float) -> list[tuple[Record, bool]]:
    """Returns the tiles of an image, each with whether it is empty.

    Tiles that show only crowds, or too little of an object, are dropped: they are neither empty nor worth training on.
    """
    where = f"{record['file_name']}: image {record.get('image_id')!r}"
    if "height" not in record or "width" not in record:
        raise InputError(f"{where}: its record has no height and width, which tiles need")
    grid = TileGrid(record["width"], record["height"], tile, overlap)
    annotations = record.get("annotations", [])
    if len(grid.windows) == 1:
        return [(record, not annotations)]
    if "sem_seg_file_name" in record:
        raise InputError(f"{where}: its semantic segmentation cannot be cut into tiles")
    cut: list[list[dict[str, Any]]] = [[] for _ in grid.windows]
    shows: set[int] = set()
    for number, annotation in enumerate(annotations):
        try:
            shown = cut_annotation(annotation, grid)
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise InputError(f"{where}, annotation {number}: `bbox`, `bbox_mode` or `keypoints` ({error})") from error
        most = max((pixels for pixels, _ in shown.values()), default=0.0)
        shows |= set(shown)
        for index, (pixels, view) in shown.items():
            if pixels >= min_visible * most:
                cut[index].append(view)
    left, top = record.get("window", (0, 0))[:2]
    tiles = []
    for index, (x, y, width, height) in enumerate(grid.windows):
        if all(view.get("iscrowd", 0) for view in cut[index]) and index in shows:
            continue
        name = f"{record['image_id']}@{x},{y}"
        part = {"window": [left + x, top + y, width, height], "height": height, "width": width}
        tiles.append(({**record, "image_id": name, **part, "annotations": cut[index]}, index not in shows))
    return tiles
