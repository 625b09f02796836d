"""Outlines of objects as GeoJSON, on the map where the image lies on one.

Coordinates are

* of an image without georeference: pixels, x to the right and y down from the upper left corner of the image;
* of a raster in EPSG:4326: longitude and latitude, as RFC 7946 has it;
* of a raster in another coordinate reference system with an EPSG code: that system's, named by the member ``crs`` of GeoJSON 2008,
  which RFC 7946 has dropped and GDAL and QGIS read;
* of one without such a code: longitude and latitude, converted.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely

from maskrcnn_ext.data.formats.geo_transform import Grid, polygons_of, read_grid
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.outputs.scene import Region, Scene


def polygons(scene: Scene) -> dict[str, bytes]:
    """Returns a FeatureCollection: a feature an object, highest score first.

    Its properties are ``id`` (from 1), ``class``, ``score``, ``area`` in pixels, and ``track_id`` where objects are tracked. Objects
    without a pixel are left out.

    Raises:
        InputError: the image is a TIFF, and rasterio is not installed.
    """
    image = scene.item.image if isinstance(scene.item.image, dict) else {}
    grid = _grid(Path(scene.item.file_name)) if image else None
    outlines = [outline_of(region) for region in scene.masks()]
    areas = [outline.area for outline in outlines]
    crs = None
    if grid is not None:
        outlines, crs = _on_map(outlines, grid, image.get("window", (0, 0))[:2])
    tracks = scene.found.track_ids.tolist() if scene.found.has("track_ids") else None
    features = []
    for index, (outline, area, name, score) in enumerate(
        zip(outlines, areas, scene.names, scene.found.scores.tolist(), strict=True)
    ):
        if outline.is_empty:
            continue
        properties = {"id": index + 1, "class": name, "score": score, "area": area}
        if tracks is not None:
            properties["track_id"] = tracks[index]
        geometry = shapely.geometry.mapping(outline)
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    collection: dict[str, Any] = {"type": "FeatureCollection"}
    if crs is not None:
        collection["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs}"}}
    collection["features"] = features
    return {f"{scene.item.name}.geojson": json.dumps(collection, ensure_ascii=False).encode("utf-8")}


def outline_of(region: Region) -> shapely.Geometry:
    """Returns the valid Polygon or MultiPolygon, with holes, along the edges of a mask's pixels; an empty one of an empty mask."""
    if not region.mask.any():
        return shapely.Polygon()
    # OpenCV's contours go through the centres of pixels. In the doubled mask, the centres 2x and 2x + 1 tell the left edge of the pixel x
    # from its right edge.
    contours, hierarchy = cv2.findContours(
        region.mask.repeat(2, axis=0).repeat(2, axis=1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rings = [(contour[:, 0] + 1) // 2 + (region.x, region.y) for contour in contours]
    parents = hierarchy[0, :, 3]
    parts = [
        shapely.Polygon(rings[part], [rings[hole] for hole in np.flatnonzero(parents == part)])
        for part in np.flatnonzero(parents < 0)
    ]
    # Where pixels touch at a corner alone, a ring meets itself there.
    whole = shapely.MultiPolygon(polygons_of(shapely.make_valid(np.array(parts))))
    return _oriented(whole.simplify(0))


def _grid(file: Path) -> Grid | None:
    """Where a GeoTIFF lies; None for other images."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        import rasterio
    except ImportError as error:
        raise InputError(f'{file}: polygons of a TIFF need rasterio: pip install "maskrcnn_ext[geo]"') from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(file) as source:
            if source.crs is None:
                return None
    return read_grid(file)


def _on_map(outlines: list[Any], grid: Grid, corner: Any) -> tuple[list[Any], int | None]:
    """The outlines in map coordinates, and the EPSG code that is to be told."""
    from rasterio.warp import transform

    mapped = np.array(outlines, dtype=object)
    points = grid.to_map(shapely.get_coordinates(mapped) + corner)
    code = grid.crs.to_epsg()
    if code is None and len(points):
        points = np.stack(transform(grid.crs, "EPSG:4326", points[:, 0], points[:, 1]), axis=1)
    # A map's y goes up, so that rings turn the other way.
    placed = [_oriented(outline) for outline in shapely.set_coordinates(mapped, points)]
    return placed, None if code in (None, 4326) else code


def _oriented(outline: shapely.Geometry) -> shapely.Geometry:
    """The outer rings anticlockwise, the holes clockwise, as RFC 7946 wants it."""
    parts = [shapely.geometry.polygon.orient(part) for part in shapely.get_parts(outline)]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
