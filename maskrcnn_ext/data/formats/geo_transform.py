"""Converts between pixels of a georeferenced raster and map coordinates: affine grids, reprojection, polygons without holes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.errors import InputError


@dataclass(frozen=True, slots=True)
class Grid:
    """The georeference of a raster.

    Attributes:
        transform: (a, b, c, d, e, f) with map x = a * column + b * row + c and map y = d * column + e * row + f; column and row count
            from the raster's upper left corner, so that pixel centres are at halves.
        crs: the map's coordinate reference system, a :class:`rasterio.crs.CRS`.
        width: in pixels.
        height: in pixels.
    """

    transform: tuple[float, ...]
    crs: Any
    width: int
    height: int

    def to_map(self, points: np.ndarray) -> np.ndarray:
        """Converts pixel coordinates (N, 2) to map coordinates."""
        matrix, origin = self._matrix()
        mapped: np.ndarray = points @ matrix.T + origin
        return mapped

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Converts map coordinates (N, 2) to pixel coordinates."""
        matrix, origin = self._matrix()
        # Subtract the origin first: map coordinates are large numbers, and this preserves their last digits.
        return np.linalg.solve(matrix, (points - origin).T).T

    def bounds(self) -> tuple[float, float, float, float]:
        """Returns (left, bottom, right, top) in map coordinates, also for a rotated raster."""
        corners = self.to_map(np.array([[0, 0], [self.width, 0], [0, self.height], [self.width, self.height]], float))
        left, bottom, right, top = (float(value) for value in (*corners.min(axis=0), *corners.max(axis=0)))
        return left, bottom, right, top

    def _matrix(self) -> tuple[np.ndarray, np.ndarray]:
        a, b, c, d, e, f = self.transform
        return np.array([[a, b], [d, e]]), np.array([c, f])


def read_grid(raster: Path) -> Grid:
    """Returns the georeference of a raster; reads no pixels.

    Raises:
        InputError: the file is not a raster, or has no georeference.
    """
    rasterio = require("rasterio", extra="geo", purpose="georeferenced data")
    try:
        with rasterio.open(raster) as source:
            grid = Grid(tuple(source.transform)[:6], source.crs, source.width, source.height)
    except rasterio.errors.RasterioIOError as error:
        raise InputError(f"{raster}: not a readable raster ({error})") from error
    if grid.crs is None:
        raise InputError(
            f"{raster}: has no coordinate reference system, so that outlines cannot be placed on it; "
            "if you know it, set it: rio edit-info --crs EPSG:<code> <file>; if the outlines are in pixels, as QuPath exports them, add "
            "@pixels:true to the string of the data set"
        )
    a, b, _, d, e, _ = grid.transform
    if a * e == b * d:
        raise InputError(f"{raster}: its affine transform {grid.transform} has no inverse")
    return grid


def pixel_grid(image: Path, crs: Any) -> Grid:
    """Returns the grid of an image whose outlines are in its pixels, in the coordinate reference system that their file states."""
    if image.suffix.lower() not in (".tif", ".tiff"):
        height, width = image_size(image, str(image))
        return Grid((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), crs, width, height)
    rasterio = require("rasterio", extra="geo", purpose="georeferenced data")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(image) as source:
                return Grid((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), crs, source.width, source.height)
    except rasterio.errors.RasterioIOError as error:
        raise InputError(f"{image}: not a readable raster ({error})") from error


def to_map(polygons: list[list[float]], grid: Grid, window: Sequence[float] | None = None) -> list[list[float]]:
    """Converts the polygons of a prediction to map coordinates.

    Args:
        polygons: [x, y, x, y, ...] each, in pixels of the image.
        grid: the raster's, from :func:`read_grid`.
        window: (x, y, width, height), the record's ``window`` if the image is a part of the raster.

    Returns:
        [x, y, x, y, ...] each, in the coordinate reference system ``grid.crs``.
    """
    shift = np.array(window[:2] if window is not None else (0, 0), dtype=float)
    return [
        grid.to_map(np.array(polygon, dtype=float).reshape(-1, 2) + shift).flatten().tolist() for polygon in polygons
    ]


def reproject(geometries: np.ndarray, source: Any, grid: Grid) -> np.ndarray:
    """Transforms the vertices of Shapely geometries to the coordinate reference system of a raster.

    Args:
        geometries: (N,).
        source: their coordinate reference system.
        grid: of the raster.

    Returns:
        (N,); None for geometries far from the raster, whose projection may be undefined there.

    Raises:
        InputError: a geometry near the raster has a vertex where the raster's projection is undefined.
    """
    from rasterio.warp import transform

    reprojected = geometries.copy()
    if source == grid.crs:
        return reprojected
    close = shapely.intersects(shapely.box(*shapely.bounds(geometries).T), _surroundings(grid, source))
    reprojected[~close] = None
    points = shapely.get_coordinates(geometries[close])
    if len(points) == 0:
        return reprojected
    try:
        xs, ys = transform(source, grid.crs, points[:, 0], points[:, 1])
        transformed = np.stack([xs, ys], axis=1)
    except Exception as error:  # GDAL's errors have no public class
        raise InputError(f"outlines in {source} cannot be transformed to {grid.crs} ({error})") from error
    if not np.isfinite(transformed).all():
        raise InputError(f"outlines in {source} extend beyond the area of {grid.crs}; cut them to the raster first")
    reprojected[close] = shapely.set_coordinates(geometries[close], transformed)
    return reprojected


def _surroundings(grid: Grid, target: Any) -> shapely.Geometry:
    """Returns a box around a raster, with a margin, in another coordinate reference system; empty if it cannot be transformed."""
    from rasterio.warp import transform_bounds

    try:
        left, bottom, right, top = transform_bounds(grid.crs, target, *grid.bounds())
    except Exception:  # GDAL's errors have no public class
        return shapely.Polygon()
    if left > right:  # across the antimeridian
        left, right = -180.0, 180.0
    # Straight edges become curves, whose bounds are computed from a few points only.
    margin = 0.1 * max(right - left, top - bottom)
    return shapely.box(left - margin, bottom - margin, right + margin, top + margin)


def without_holes(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """Returns polygons without holes that together equal a polygon, cut vertically through its holes. COCO polygons have no holes.

    Example:
        >>> ring = shapely.box(0, 0, 6, 6) - shapely.box(2, 2, 4, 4)
        >>> [part.area for part in without_holes(ring)]
        [16.0, 16.0]
    """
    if not polygon.interiors:
        return [polygon]
    left, bottom, right, top = polygon.bounds
    hole_left, _, hole_right, _ = polygon.interiors[0].bounds
    middle = (hole_left + hole_right) / 2
    halves = (shapely.box(left, bottom, middle, top), shapely.box(middle, bottom, right, top))
    pieces = [piece for half in halves for piece in polygons_of(shapely.intersection(polygon, half))]
    return [whole for piece in pieces for whole in without_holes(piece)]


def polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    """Returns the polygons of a geometry that have an area. Intersections also contain points and lines."""
    return [
        part
        for part in shapely.get_parts(
            shapely.get_parts(geometry)
        )  # twice, because a collection may contain multipolygons
        if isinstance(part, shapely.Polygon) and part.area > 0
    ]
