"""GeoJSON: outlines enclose exactly the pixels of the masks, in the coordinates of the image's map."""

import json
import sys

import cv2
import numpy as np
import pytest
import shapely

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.outputs import find_output
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage
from maskrcnn_ext.inference.sources import InputImage
from tests.helpers.predicted_images import CLASSES, HEIGHT, WIDTH, instances, only, predicted


def polygons(shown):
    return json.loads(only(find_output("polygons")(shown), "a/b.geojson"))


def test_polygons_have_class_score_area_and_holes(image, masks):
    content = polygons(predicted(instances(masks), image))
    assert "crs" not in content
    assert [feature["properties"] for feature in content["features"]] == [
        {"id": 1, "class": "cat/dog", "score": pytest.approx(0.9), "area": masks[0].sum()},
        {"id": 2, "class": "b", "score": pytest.approx(0.75), "area": 500},
        {"id": 3, "class": "cat/dog", "score": pytest.approx(0.6), "area": 1},
    ]
    ring, square, pixel = (shapely.geometry.shape(feature["geometry"]) for feature in content["features"])
    assert len(ring.interiors) == 1
    assert ring.exterior.is_ccw
    assert not ring.interiors[0].is_ccw
    assert square.equals(shapely.box(25, 10, 50, 30))
    assert pixel.equals(shapely.box(WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT))
    assert len(square.exterior.coords) == 5


def write_raster(file, crs, transform):
    rasterio = pytest.importorskip("rasterio")
    options = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8"}
    with rasterio.open(file, "w", crs=crs, transform=rasterio.Affine(*transform), **options) as raster:
        raster.write(np.ones((3, HEIGHT, WIDTH), np.uint8))
    return file


def test_a_geopackage_has_the_same_features(tmp_path, image, masks):
    pyogrio = pytest.importorskip("pyogrio")
    file = write_raster(tmp_path / "a.tif", "EPSG:32633", (0.5, 0, 500_000, 0, -0.5, 5_000_000))
    for found in (masks, np.zeros((0, HEIGHT, WIDTH))):
        item = InputImage("key", "a/b", 1, {"file_name": str(file)}, str(file))
        shown = PredictedImage(item, instances(found), CLASSES, lambda: image)
        package = tmp_path / "b.gpkg"
        package.write_bytes(only(find_output("geopackage")(shown), "a/b.gpkg"))
        meta, _, shapes, columns = pyogrio.raw.read(package, layer="objects")
        expected = polygons(shown)["features"]
        assert meta["crs"] == "EPSG:32633"
        rows = [dict(zip(meta["fields"], row, strict=True)) for row in zip(*columns, strict=True)]
        assert rows == [feature["properties"] for feature in expected]
        for shape, feature in zip(shapely.from_wkb(shapes), expected, strict=True):
            assert shape.equals(shapely.geometry.shape(feature["geometry"]))
    with pytest.raises(InputError, match="has no map coordinates: use --save polygons"):
        find_output("geopackage")(predicted(instances(masks), image))


@pytest.mark.parametrize("window", [None, (100, 200, WIDTH, HEIGHT)])
def test_polygons_of_a_geotiff_are_in_its_coordinates(tmp_path, image, masks, window):
    pytest.importorskip("pyogrio")
    from maskrcnn_ext.data.formats.geo_vector import read_outlines

    file = write_raster(tmp_path / "a.tif", "EPSG:32633", (0.5, 0, 500_000, 0, -0.5, 5_000_000))
    record = {"file_name": str(file), **({"window": window} if window else {})}
    shown = PredictedImage(InputImage("key", "a/b", 1, record, str(file)), instances(masks), CLASSES, lambda: image)
    content = polygons(shown)
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    outlines = read_outlines(tmp_path / "a.geojson", "class")
    assert outlines.crs.to_epsg() == 32633
    assert outlines.values == ["cat/dog", "b", "cat/dog"]
    left, top = (500_000, 5_000_000) if window is None else (500_050, 4_999_900)
    assert outlines.geometries[1].equals(shapely.box(left + 12.5, top - 15, left + 25, top - 5))
    assert shapely.geometry.shape(content["features"][0]["geometry"]).exterior.is_ccw  # though the map's y goes up
    assert content["features"][1]["properties"]["area"] == 500


def test_systems_without_epsg_code_become_longitude_and_latitude(tmp_path, image, masks):
    degrees = write_raster(tmp_path / "d.tif", "EPSG:4326", (1e-5, 0, 15.0, 0, -1e-5, 45.0))
    content = polygons(predicted(instances(masks), image, degrees))
    assert "crs" not in content
    x0, y0, x1, y1 = shapely.geometry.shape(content["features"][1]["geometry"]).bounds
    assert (x0, y0, x1, y1) == pytest.approx((15.00025, 44.9997, 15.0005, 44.9999), abs=1e-9)

    own = "+proj=tmerc +lat_0=45 +lon_0=15 +k=1 +x_0=0 +y_0=0 +ellps=WGS84 +units=m"
    metres = write_raster(tmp_path / "m.tif", own, (1, 0, -5, 0, -1, 0))
    content = polygons(predicted(instances(masks), image, metres))
    assert "crs" not in content
    x0, y0, x1, y1 = shapely.geometry.shape(content["features"][1]["geometry"]).bounds
    assert x0 == pytest.approx(15 + 20 / 78_850, abs=1e-6)  # metres in a degree of longitude at 45 degrees north
    assert y1 == pytest.approx(45 - 10 / 111_130, abs=1e-6)


def test_a_tiff_without_georeference_is_in_pixels(tmp_path, image, masks, monkeypatch):
    cv2.imwrite(str(tmp_path / "plain.tif"), image)
    shown = predicted(instances(masks), image, tmp_path / "plain.tif")
    square = shapely.geometry.shape(polygons(shown)["features"][1]["geometry"])
    assert square.equals(shapely.box(25, 10, 50, 30))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r'pip install "maskrcnn_ext\[geo\]"'):
        find_output("polygons")(shown)
