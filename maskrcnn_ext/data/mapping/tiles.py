"""Training on tiles of large images: ``dataloader.train.dataset._target_=maskrcnn_ext.get_tiled_dataset_dicts``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from detectron2.structures import BoxMode

from maskrcnn_ext.data.formats.geo import in_window
from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.data.mapping.ground_truth import read_outline
from maskrcnn_ext.data.registry.catalog import get_dataset_dicts
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_mask, rle_area, segmentation_to_rle, with_text_counts
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid, Window

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Annotation = dict[str, Any]
Box = tuple[float, ...]


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
        if not 0 <= share <= 1:
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


def cut_annotation(annotation: Annotation, grid: TileGrid) -> dict[int, tuple[float, Annotation]]:
    """Cuts an annotation at the edges of tiles.

    Polygons stay polygons; RLEs and masks become RLEs of the tile. The box of a cut object is the box of its visible outline. Keypoints
    outside of the tile become unlabelled. A missing or broken segmentation is left out: the mapper decides what to do with the object.

    Args:
        annotation: in Detectron2's standard format, in pixels of the image.
        grid: the tiles of the image.

    Returns:
        For each tile that shows the object: the number of visible pixels, and the annotation in pixels of the tile.

    Raises:
        KeyError, TypeError, ValueError, AssertionError: box or keypoints are missing or broken.
    """
    box: Box = tuple(map(float, BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)))
    if not np.isfinite(box).all():
        raise ValueError(f"the box {list(box)} contains NaN or infinity")
    outline: _Polygons | _Mask | _Rectangle
    try:
        outline = _read(annotation.get("segmentation"), grid)
    except (KeyError, TypeError, ValueError):
        annotation = {key: value for key, value in annotation.items() if key != "segmentation"}
        outline = _Rectangle(box)
    hull = (*map(min, box[:2], outline.box[:2]), *map(max, box[2:], outline.box[2:]))
    found = {}
    for index in grid.meeting(hull):
        window = grid.windows[index]
        pixels, tight, part = outline.cut(window)
        if pixels:
            view = {**annotation, **part, "bbox": list(_shift(box, window) if _contains(window, hull) else tight)}
            view["bbox_mode"] = BoxMode.XYXY_ABS
            if annotation.get("keypoints"):
                view["keypoints"] = _move_keypoints(annotation["keypoints"], window)
            if annotation.get("point_coords"):
                view["point_coords"] = [[x - window[0], y - window[1]] for x, y in annotation["point_coords"]]
            found[index] = (pixels, view)
    return found


def _read(segmentation: Any, grid: TileGrid) -> _Polygons | _Mask:
    if not isinstance(segmentation, dict):
        segmentation = read_outline(segmentation, grid.height, grid.width)
        if isinstance(segmentation, list):
            return _Polygons([polygon.reshape(-1, 2) for polygon in segmentation])
        segmentation = encode_mask(segmentation)
    if tuple(segmentation["size"]) != (grid.height, grid.width):
        raise ValueError("the RLE has another size than the image")
    return _Mask(Segments.from_rle(segmentation))


class _Polygons:
    """Cuts a segmentation of polygons, (N, 2) each."""

    def __init__(self, polygons: list[np.ndarray]) -> None:
        self.polygons = polygons
        points = np.concatenate(polygons)
        self.box: Box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        self._tree: shapely.STRtree | None = None

    def cut(self, window: Window) -> tuple[float, Box, Annotation]:
        """Returns the pixels, tight box and ``segmentation`` in a window."""
        x, y, width, height = window
        if _contains(window, self.box):
            cut = [(polygon - (x, y)).ravel().tolist() for polygon in self.polygons]
        else:
            cut = [polygon for _, polygons in in_window(self._valid(), window, 0.0) for polygon in polygons]
        if not cut:
            return 0, (), {}
        pixels = rle_area(segmentation_to_rle(cut, height, width))
        return float(pixels), box_of_polygons(cut, height, width), {"segmentation": cut}

    def _valid(self) -> shapely.STRtree:
        """Returns the union of the polygons; a self-intersecting one is filled by the even-odd rule."""
        if self._tree is None:
            parts = [shapely.make_valid(shapely.Polygon(polygon)) for polygon in self.polygons]
            self._tree = shapely.STRtree([shapely.union_all(parts)])
        return self._tree


class _Mask:
    """Cuts a segmentation that is a mask."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments
        self.box: Box = tuple(map(float, segments.box()))

    def cut(self, window: Window) -> tuple[float, Box, Annotation]:
        """Returns the same as :meth:`_Polygons.cut`."""
        x, y, width, height = window
        cut = self.segments.crop(window).shift(-x, -y)
        segmentation = with_text_counts(cut.to_rle((height, width)))
        return float(cut.area()), tuple(map(float, cut.box())), {"segmentation": segmentation}


class _Rectangle:
    """Represents an object without a segmentation by its box."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def cut(self, window: Window) -> tuple[float, Box, Annotation]:
        """Returns the same as :meth:`_Polygons.cut`."""
        box = _clip(self.box, window)
        return (box[2] - box[0]) * (box[3] - box[1]), box, {}


def _contains(window: Window, box: Box) -> bool:
    return _clip(box, window) == _shift(box, window)


def _shift(box: Box, window: Window) -> Box:
    x, y, _, _ = window
    return box[0] - x, box[1] - y, box[2] - x, box[3] - y


def _clip(box: Box, window: Window) -> Box:
    """Returns a box (x0, y0, x1, y1) in the coordinates of a window, clipped to it."""
    _, _, width, height = window
    limits = (width, height, width, height)
    return tuple(min(max(value, 0.0), limit) for value, limit in zip(_shift(box, window), limits, strict=True))


def _move_keypoints(keypoints: Sequence[float], window: Window) -> list[float]:
    x, y, width, height = window
    points = np.array(keypoints, dtype=np.float64).reshape(-1, 3) - (x, y, 0)
    is_inside = (points[:, :2] >= 0).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
    points[~is_inside | (points[:, 2] == 0)] = 0
    moved: list[float] = points.ravel().tolist()
    return moved
