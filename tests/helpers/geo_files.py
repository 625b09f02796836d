"""Writes small georeferenced rasters, and outlines on them as GeoJSON."""

import json

import numpy as np
import rasterio
from rasterio.transform import Affine

UTM = Affine(0.5, 0, 733601.0, 0, -0.5, 3725139.0)
TURNED = Affine.translation(733601.0, 3725139.0) @ Affine.rotation(30) @ Affine(0.5, 0.1, 0, 0, -0.4, 0)
SQUARE = [[20.0, 30.0, 40.25, 30.0, 40.25, 50.5, 20.0, 50.5]]


def write_raster(file, *, transform=UTM, crs="EPSG:32616", width=100, height=80):
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": width, "height": height}
    with rasterio.open(file, "w", **profile, transform=transform, crs=crs) as target:
        target.write(np.zeros((1, height, width), np.uint8))
    return file


def on_map(polygon, transform=UTM):
    return [list(transform @ point) for point in zip(polygon[0::2], polygon[1::2], strict=True)]


def feature(rings, shape="Polygon", **properties):
    return {"type": "Feature", "properties": properties, "geometry": {"type": shape, "coordinates": rings}}


def closed(ring):
    return [*ring, ring[0]]


def write_vector(file, features, code=32616):
    crs = {"crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}} if code else {}
    file.write_text(json.dumps({"type": "FeatureCollection", **crs, "features": features}))
    return file


def box_feature(x0, y0, x1, y1, transform=UTM, **properties):
    return feature([closed(on_map([x0, y0, x1, y0, x1, y1, x0, y1], transform))], **properties)


def points_of(polygon):
    """The corners, whichever comes first and whichever way round."""
    return sorted(zip(np.round(polygon[0::2], 4), np.round(polygon[1::2], 4), strict=True))
