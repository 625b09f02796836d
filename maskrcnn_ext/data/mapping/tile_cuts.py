"""Cuts annotations at the edges of tiles: polygons stay polygons, masks become RLEs of the tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from detectron2.structures import BoxMode

from maskrcnn_ext.data.formats.geo import in_window
from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.data.mapping.ground_truth import read_outline
from maskrcnn_ext.ops.rle import encode_mask, rle_area, segmentation_to_rle, with_text_counts
from maskrcnn_ext.ops.rle_segments import Segments
from maskrcnn_ext.ops.tile_grid import TileGrid, Window

Annotation = dict[str, Any]
Box = tuple[float, ...]


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
