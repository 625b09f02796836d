"""Between the pixels of a georeferenced raster and the map: affine grids, reprojection, outlines without holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from maskrcnn_ext.errors import InputError


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of a raster lie on the map.

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
        """Map coordinates of pixel coordinates (N, 2)."""
        matrix, origin = self._matrix()
        mapped: np.ndarray = points @ matrix.T + origin
        return mapped

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Pixel coordinates of map coordinates (N, 2)."""
        matrix, origin = self._matrix()
        # The origin goes first: map coordinates are large numbers, and this keeps their last digits.
        return np.linalg.solve(matrix, (points - origin).T).T

    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in map coordinates, also of a rotated raster."""
        corners = self.to_map(np.array([[0, 0], [self.width, 0], [0, self.height], [self.width, self.height]], float))
        left, bottom, right, top = (float(value) for value in (*corners.min(axis=0), *corners.max(axis=0)))
        return left, bottom, right, top

    def _matrix(self) -> tuple[np.ndarray, np.ndarray]:
        a, b, c, d, e, f = self.transform
        return np.array([[a, b], [d, e]]), np.array([c, f])


def read_grid(raster: Path) -> Grid:
    """Reads where a raster lies; no pixel is read.

    Raises:
        InputError: not a raster, or one that does not say where it lies.
    """
    try:
        import rasterio
    except ImportError as error:
        raise InputError('georeferenced data needs rasterio: pip install "maskrcnn_ext[geo]"') from error
    try:
        with rasterio.open(raster) as source:
            grid = Grid(tuple(source.transform)[:6], source.crs, source.width, source.height)
    except rasterio.errors.RasterioIOError as error:
        raise InputError(f"{raster}: not a readable raster ({error})") from error
    if grid.crs is None:
        raise InputError(
            f"{raster}: has no coordinate reference system, so that outlines cannot be placed on it; "
            "if you know it, set it: rio edit-info --crs EPSG:<code> <file>"
        )
    a, b, _, d, e, _ = grid.transform
    if a * e == b * d:
        raise InputError(f"{raster}: its affine transform {grid.transform} has no inverse")
    return grid


def to_map(polygons: list[list[float]], grid: Grid, window: Sequence[float] | None = None) -> list[list[float]]:
    """Puts the polygons of a prediction on the map.

    Args:
        polygons: [x, y, x, y, ...] each, in pixels of the image.
        grid: the raster's, from :func:`read_grid`.
        window: (x, y, width, height) where the image is a window of the raster: what a record's ``window`` says.

    Returns:
        [x, y, x, y, ...] each, in the coordinate reference system ``grid.crs``.
    """
    shift = np.array(window[:2] if window is not None else (0, 0), dtype=float)
    return [
        grid.to_map(np.array(polygon, dtype=float).reshape(-1, 2) + shift).flatten().tolist() for polygon in polygons
    ]


def reproject(geometries: np.ndarray, source: Any, grid: Grid) -> np.ndarray:
    """Takes Shapely geometries to the coordinate reference system of a raster, corner by corner.

    Args:
        geometries: (N,).
        source: their coordinate reference system.
        grid: the raster's.

    Returns:
        (N,); None for those that are far from the raster: its map need not be able to show them.

    Raises:
        InputError: one near the raster extends to where the raster's map ends.
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
        there = np.stack([xs, ys], axis=1)
    except Exception as error:  # GDAL's own, which have no public class
        raise InputError(f"outlines in {source} cannot be taken to {grid.crs} ({error})") from error
    if not np.isfinite(there).all():
        raise InputError(f"outlines in {source} extend beyond what {grid.crs} can show; cut them to the raster first")
    reprojected[close] = shapely.set_coordinates(geometries[close], there)
    return reprojected


def _surroundings(grid: Grid, target: Any) -> shapely.Geometry:
    """A box around a raster, with a margin, in another coordinate reference system; empty where that cannot show the raster."""
    from rasterio.warp import transform_bounds

    try:
        left, bottom, right, top = transform_bounds(grid.crs, target, *grid.bounds())
    except Exception:  # GDAL's own, which have no public class
        return shapely.Polygon()
    if left > right:  # across the antimeridian
        left, right = -180.0, 180.0
    # Straight edges become curves, of which the bounds are known at a few points only.
    margin = 0.1 * max(right - left, top - bottom)
    return shapely.box(left - margin, bottom - margin, right + margin, top + margin)


def without_holes(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """Cuts a polygon upright through the middle of its holes, since COCO polygons have none: the pieces together are the polygon."""
    if not polygon.interiors:
        return [polygon]
    left, bottom, right, top = polygon.bounds
    hole_left, _, hole_right, _ = polygon.interiors[0].bounds
    middle = (hole_left + hole_right) / 2
    halves = (shapely.box(left, bottom, middle, top), shapely.box(middle, bottom, right, top))
    pieces = [piece for half in halves for piece in polygons_of(shapely.intersection(polygon, half))]
    return [whole for piece in pieces for whole in without_holes(piece)]


def polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    """The polygons with area of any geometry: an intersection also leaves points and lines."""
    return [
        part
        for part in shapely.get_parts(shapely.get_parts(geometry))  # twice: a collection holds multipolygons
        if isinstance(part, shapely.Polygon) and part.area > 0
    ]
