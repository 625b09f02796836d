"""Outlines of objects as GeoJSON, in map coordinates if the image is georeferenced.

The coordinates are

* pixels for an image without georeference, x to the right and y down from the upper left corner of the image;
* longitude and latitude for a raster in EPSG:4326, as RFC 7946 requires;
* those of the raster for another coordinate reference system with an EPSG code. The member ``crs`` names it: GeoJSON 2008 defined that
  member, RFC 7946 removed it, and GDAL and QGIS still read it;
* longitude and latitude, converted, for a coordinate reference system without an EPSG code.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.geo_transform import Grid, read_grid
from maskrcnn_ext.data.writers.outlines import geometry_of_mask, orient
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage


def polygons(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns a FeatureCollection with one feature per object, the highest score first.

    The properties are ``id`` (from 1), ``class``, ``score``, ``area`` in pixels, and ``track_id`` if objects are tracked. Objects without
    any pixel are left out.

    Raises:
        InputError: the image is a TIFF, and rasterio is not installed.
    """
    image = predicted.item.image if isinstance(predicted.item.image, dict) else {}
    grid = _read_georeference(Path(predicted.item.file_name)) if image else None
    outlines = [geometry_of_mask(window.mask, (window.x, window.y)) for window in predicted.masks()]
    areas = [outline.area for outline in outlines]
    crs = None
    if grid is not None:
        outlines, crs = _to_map(outlines, grid, image.get("window", (0, 0))[:2])
    tracks = predicted.instances.track_ids.tolist() if predicted.instances.has("track_ids") else None
    features = []
    for index, (outline, area, name, score) in enumerate(
        zip(outlines, areas, predicted.names, predicted.instances.scores.tolist(), strict=True)
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
    return {f"{predicted.item.name}.geojson": json.dumps(collection, ensure_ascii=False).encode("utf-8")}


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
