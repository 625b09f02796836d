"""Conversion between pixels and map coordinates, reprojection, and polygons with holes."""

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.geo import read_geo
from maskrcnn_ext.data.formats.geo_transform import Grid, polygons_of, read_grid, reproject, to_map, without_holes
from tests.helpers.geo_files import SQUARE, TURNED, closed, feature, on_map, points_of, write_raster, write_vector


# What pyproj makes of a longitude and a latitude.
@pytest.mark.parametrize(
    ("code", "longitude", "latitude", "x", "y"),
    [
        (32616, -84.4717, 33.6393, 734494.8787, 3725030.6606),
        (3857, -84.4717, 33.6393, -9403346.6304, 3980471.0514),
        (2056, 7.43864, 46.95108, 2600000.5775, 1199999.6930),
    ],
)
def test_longitude_and_latitude_land_on_known_points(tmp_path, code, longitude, latitude, x, y):
    raster = write_raster(tmp_path / "a.tif", transform=Affine(1, 0, x - 50, 0, -1, y + 40), crs=f"EPSG:{code}")
    step = 1e-5
    ring = [[longitude, latitude], [longitude + step, latitude], [longitude, latitude + step]]
    (record,) = read_geo(write_vector(tmp_path / "a.geojson", [feature([closed(ring)])], code=None), raster).images
    corners = np.reshape(record.annotations[0].segmentation[0], (-1, 2))
    assert np.abs(corners - [50, 40]).max(axis=1).min() < 2e-3


@settings(max_examples=30, deadline=None)
@given(
    centres=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(1, 20)), min_size=1, max_size=5),
)
def test_pieces_without_holes_are_the_polygon(centres):
    discs = shapely.union_all([shapely.Point(x, y).buffer(radius, 4) for x, y, radius in centres])
    polygon = shapely.box(-30, -30, 130, 130).difference(discs)
    for part in shapely.get_parts(polygon):
        pieces = without_holes(part)
        assert not any(piece.interiors for piece in pieces)
        assert sum(piece.area for piece in pieces) == pytest.approx(part.area)
        assert shapely.union_all(pieces).symmetric_difference(part).area < 1e-6


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-180, 180),
    scale=st.floats(0.05, 30),
    shear=st.floats(-30, 30),
    window=st.tuples(*[st.integers(0, 10000)] * 2),
    points=st.lists(st.floats(0, 1000), min_size=6, max_size=12).filter(lambda values: len(values) % 2 == 0),
)
def test_pixels_to_the_map_and_back(angle, scale, shear, window, points):
    transform = (
        Affine.translation(733601, 3725139) @ Affine.rotation(angle) @ Affine.shear(shear) @ Affine.scale(scale, -scale)
    )
    grid = Grid(tuple(transform)[:6], None, 20000, 20000)
    (mapped,) = to_map([points], grid, [*window, 1000, 1000])
    back = grid.to_pixels(np.reshape(mapped, (-1, 2))) - window
    assert np.abs(back - np.reshape(points, (-1, 2))).max() < 1e-6
    x, y = transform @ (points[0] + window[0], points[1] + window[1])
    assert mapped[:2] == pytest.approx([x, y], abs=1e-6)


def test_predictions_get_the_map_coordinates_of_the_outlines(tmp_path):
    raster = write_raster(tmp_path / "a.tif", transform=TURNED)
    original = on_map(SQUARE[0], TURNED)
    vector = write_vector(tmp_path / "a.geojson", [feature([closed(original)])])
    for record in read_geo(vector, raster, tile=70).images:
        for annotation in record.annotations:
            if len(annotation.segmentation[0]) == 8:
                (mapped,) = to_map(annotation.segmentation, read_grid(raster), record.extra["window"])
                assert points_of(mapped) == points_of(np.array(original).flatten())
                return
    raise AssertionError("no window shows the whole square")


def test_bounds_enclose_a_rotated_raster(tmp_path):
    grid = read_grid(write_raster(tmp_path / "a.tif", transform=TURNED))
    corners = np.array([TURNED @ (x, y) for x in (0, 100) for y in (0, 80)])
    assert grid.bounds() == pytest.approx((*corners.min(axis=0), *corners.max(axis=0)))


def test_a_raster_without_georeference_is_named(tmp_path):
    with pytest.raises(InputError, match=r"bare\.tif: has no coordinate reference system"):
        read_grid(write_raster(tmp_path / "bare.tif", crs=None))
    with pytest.raises(InputError, match=r"flat\.tif: its affine transform .* has no inverse"):
        read_grid(write_raster(tmp_path / "flat.tif", transform=Affine(0.5, 0, 733601, 1, 0, 3725139)))
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"a\.tif: not a readable raster"):
        read_grid(tmp_path / "a.tif")


def test_geometries_far_from_the_raster_are_not_reprojected(tmp_path):
    grid = read_grid(write_raster(tmp_path / "a.tif"))
    degrees = rasterio.crs.CRS.from_epsg(4326)
    near = shapely.Point(-84.48104, 33.64029).buffer(1e-4)  # the raster's centre, and 10 metres around it
    geometries = np.array([near, shapely.Point(100, -80).buffer(1)])
    moved = reproject(geometries, degrees, grid)
    assert moved[1] is None
    assert shapely.box(*grid.bounds()).contains(moved[0].centroid)
    assert reproject(geometries, grid.crs, grid).tolist() == geometries.tolist()
    assert reproject(geometries[:0], degrees, grid).shape == (0,)


def test_points_and_lines_are_no_polygons():
    square, triangle = shapely.box(0, 0, 2, 2), shapely.Polygon([(5, 5), (6, 5), (6, 6)])
    mixed = shapely.GeometryCollection([shapely.Point(1, 1), shapely.MultiPolygon([square, triangle]), square.boundary])
    assert polygons_of(mixed) == [square, triangle]
    assert polygons_of(shapely.Polygon()) == []
