"""Outlines of objects as GeoJSON or GeoPackage, in map coordinates if the image is georeferenced.

The coordinates are

* pixels for an image without georeference, x to the right and y down from the upper left corner of the image;
* longitude and latitude for a raster in EPSG:4326, as RFC 7946 requires;
* those of the raster for another coordinate reference system with an EPSG code. The member ``crs`` names it: GeoJSON 2008 defined that
  member, RFC 7946 removed it, and GDAL and QGIS still read it;
* longitude and latitude, converted, for a coordinate reference system without an EPSG code.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import MultiPolygon

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.geo_transform import Grid, read_grid
from maskrcnn_ext.data.writers.outlines import geometry_of_mask, orient
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage


def polygons(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns a FeatureCollection with one feature per object, the highest score first.

    The properties are ``id`` (from 1), ``class``, ``score``, ``area`` in pixels, and ``track_id`` if objects are tracked. Objects without
    any pixel are left out.

    Raises:
        InputError: the image is a TIFF, and rasterio is not installed.
    """
    outlines, rows, crs = _outlines(predicted)
    collection: dict[str, Any] = {"type": "FeatureCollection"}
    if crs is not None:
        collection["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs}"}}
    collection["features"] = [
        {"type": "Feature", "properties": row, "geometry": shapely.geometry.mapping(outline)}
        for outline, row in zip(outlines, rows, strict=True)
    ]
    return {f"{predicted.item.name}.geojson": json.dumps(collection, ensure_ascii=False).encode("utf-8")}


def geopackage(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns a GeoPackage with the features of :func:`polygons` in a layer ``objects``, as multipolygons.

    Raises:
        InputError: the image has no georeference, or pyogrio or rasterio is not installed.
    """
    raw = require("pyogrio.raw", extra="geo", purpose="--save geopackage")
    file = Path(predicted.item.file_name)
    grid = _read_georeference(file)
    if grid is None:
        raise InputError(f"--save geopackage: {file} has no map coordinates: use --save polygons")
    outlines, rows, crs = _outlines(predicted)
    shapes = np.empty(len(outlines), dtype=object)
    shapes[:] = [outline if outline.geom_type == "MultiPolygon" else MultiPolygon([outline]) for outline in outlines]
    names = list(rows[0]) if rows else ["id", "class", "score", "area"]
    columns = [np.array([row[name] for row in rows], dtype=object if name == "class" else None) for name in names]
    buffer = io.BytesIO()
    raw.write(
        buffer,
        shapely.to_wkb(shapes),
        columns,
        names,
        layer="objects",
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs=f"EPSG:{crs or 4326}",
    )
    return {f"{predicted.item.name}.gpkg": buffer.getvalue()}


def _outlines(predicted: PredictedImage) -> tuple[list[Any], list[dict[str, Any]], int | None]:
    """Returns the outlines of the objects that have a pixel, their properties, and the EPSG code of :func:`_to_map`."""
    image = predicted.item.image if isinstance(predicted.item.image, dict) else {}
    grid = _read_georeference(Path(predicted.item.file_name)) if image else None
    outlines = [geometry_of_mask(window.mask, (window.x, window.y)) for window in predicted.masks()]
    areas = [outline.area for outline in outlines]
    crs = None
    if grid is not None:
        outlines, crs = _to_map(outlines, grid, image.get("window", (0, 0))[:2])
    tracks = predicted.instances.track_ids.tolist() if predicted.instances.has("track_ids") else None
    kept, rows = [], []
    for index, (outline, area, name, score) in enumerate(
        zip(outlines, areas, predicted.names, predicted.instances.scores.tolist(), strict=True)
    ):
        if outline.is_empty:
            continue
        row = {"id": index + 1, "class": name, "score": score, "area": area}
        if tracks is not None:
            row["track_id"] = tracks[index]
        kept.append(outline)
        rows.append(row)
    return kept, rows, crs


def _read_georeference(file: Path) -> Grid | None:
    """Returns the transform from pixels to map coordinates of a GeoTIFF; None for other images."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return None
    rasterio = require("rasterio", extra="geo", purpose=f"{file}: writing the polygons of a TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(file) as source:
            if source.crs is None:
                return None
    return read_grid(file)


def _to_map(outlines: list[Any], grid: Grid, corner: Any) -> tuple[list[Any], int | None]:
    """Returns the outlines in map coordinates, and the EPSG code for the member ``crs``, or None if it is not needed.

    Args:
        outlines: in pixels of the predicted window.
        grid: the transform of the raster.
        corner: x and y of the window's upper left corner, in pixels of the raster.
    """
    from rasterio.warp import transform

    mapped = np.array(outlines, dtype=object)
    points = grid.to_map(shapely.get_coordinates(mapped) + corner)
    code = grid.crs.to_epsg()
    if code is None and len(points):
        points = np.stack(transform(grid.crs, "EPSG:4326", points[:, 0], points[:, 1]), axis=1)
    # The y axis of a map points up, so rings turn the other way.
    placed = [orient(outline) for outline in shapely.set_coordinates(mapped, points)]
    return placed, None if code in (None, 4326) else code
