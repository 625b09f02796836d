"""Training on tiles of large images: ``dataloader.train.dataset._target_=maskrcnn_ext.get_tiled_dataset_dicts``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from maskrcnn_ext.data.mapping.tile_views import views
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
) -> list[Record]:
    """:func:`get_dataset_dicts` with every image cut into tiles that overlap.

    The records have a ``window``, which :class:`maskrcnn_ext.SafeMapper` reads; of a TIFF or a NumPy array it reads nothing else, other
    files are decoded whole for every tile. Their ``image_id`` is ``<id>@<x>,<y>``. An image that is no larger than a tile stays as it is.

    Args:
        names: as for :func:`get_dataset_dicts`.
        tile: side of the tiles in pixels.
        overlap: of neighbouring tiles, as share of the side.
        min_visible: an object is left out of a tile that shows less of it than this share of what the tile that shows most of it shows.
            For objects smaller than the overlap, this is the share of the object; one larger than a tile is in all that show enough.
        empty_share: of all tiles, the share that shows nothing; always the same ones. 0 leaves them out, 1 keeps all.
        filter_empty: take no tiles of images without objects.
        min_keypoints: leave out tiles with fewer visible keypoints.

    Raises:
        InputError: as for :func:`get_dataset_dicts`; an argument that is none, or a record that cannot be cut.
    """
    for name, share in (("min_visible", min_visible), ("empty_share", empty_share)):
        if not 0 <= share <= 1:
            raise InputError(f"{name}={share}: expected a share from 0 to 1")
    records = get_dataset_dicts(names, filter_empty=filter_empty)
    tiles: list[Record] = []
    empty: list[int] = []
    for record in records:
        for found, is_empty in _cut_record(record, tile, overlap, min_visible):
            if is_empty:
                empty.append(len(tiles))
            tiles.append(found)
    with_objects = len(tiles) - len(empty)
    wanted = len(empty) if empty_share == 1 else round(with_objects * empty_share / (1 - empty_share))
    unwanted = set(sorted(empty, key=lambda index: _draw(tiles[index]))[wanted:])
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


def _draw(record: Record) -> bytes:
    """Takes the place of chance."""
    return hashlib.blake2b(str(record["image_id"]).encode()).digest()


def _cut_record(record: Record, tile: int, overlap: float, min_visible: float) -> list[tuple[Record, bool]]:
    """Returns the tiles of an image that have objects or show nothing, and which show nothing.

    A tile that shows crowds alone, or too little of an object, is neither.
    """
    where = f"{record['file_name']}: image {record.get('image_id')!r}"
    if "height" not in record or "width" not in record:
        raise InputError(f"{where}: its record has no height and width: tiles need them")
    grid = TileGrid(record["width"], record["height"], tile, overlap)
    annotations = record.get("annotations", [])
    if len(grid.windows) == 1:
        return [(record, not annotations)]
    if "sem_seg_file_name" in record:
        raise InputError(f"{where}: it has a semantic segmentation, of which no tiles are read")
    cut: list[list[dict[str, Any]]] = [[] for _ in grid.windows]
    shows: set[int] = set()
    for number, annotation in enumerate(annotations):
        try:
            shown = views(annotation, grid)
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
