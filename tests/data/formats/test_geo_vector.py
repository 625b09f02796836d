"""Outlines from GeoJSON, GeoPackage and shapefiles, and errors for damaged files."""

import json

import numpy as np
import pyogrio
import pytest
import shapely

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.geo import read_geo
from maskrcnn_ext.data.formats.geo_vector import read_outlines
from tests.helpers.geo_files import SQUARE, box_feature, closed, feature, on_map, write_raster, write_vector


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson"])
def test_a_geopackage_equals_its_geojson(tmp_path, name):
    raster = write_raster(tmp_path / "a.tif")
    geometry = shapely.to_wkb(shapely.Polygon(on_map(SQUARE[0])))
    pyogrio.raw.write(
        tmp_path / name, np.array([geometry]), [np.array(["roof"])], ["kind"], geometry_type="Polygon", crs="EPSG:32616"
    )
    data = read_geo(tmp_path / name, raster, attribute="kind")
    assert data.classes == ["roof"]
    # The GeoJSON writer follows RFC 7946: in longitude and latitude, with seven digits behind the point (1 cm).
    found = np.sort(np.reshape(data.images[0].annotations[0].segmentation[0], (-1, 2)), axis=0)
    np.testing.assert_allclose(found, np.sort(np.reshape(SQUARE[0], (-1, 2)), axis=0), atol=0.05)


def test_a_layer_is_chosen(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    for layer, shift in (("old", 0), ("new", 10)):
        geometry = shapely.to_wkb(shapely.Polygon(on_map(np.array(SQUARE[0]) + shift)))
        pyogrio.raw.write(
            tmp_path / "a.gpkg", np.array([geometry]), [], [], geometry_type="Polygon", crs="EPSG:32616", layer=layer,
            append=shift > 0,
        )  # fmt: skip
    (record,) = read_geo(tmp_path / "a.gpkg", raster, layer="new").images
    np.testing.assert_allclose(record.annotations[0].box, [30, 40, 50.25, 60.5], atol=1e-4)
    with pytest.raises(InputError, match="has the layers old, new: choose one by `layer`"):
        read_geo(tmp_path / "a.gpkg", raster)
    with pytest.raises(InputError, match=r"has no layer 'newer' \(it has old, new\)"):
        read_geo(tmp_path / "a.gpkg", raster, layer="newer")


def test_self_intersecting_outlines_are_made_valid(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [feature([closed(on_map([10, 10, 30, 30, 30, 10, 10, 30]))])])
    (annotation,) = read_geo(vector, raster).images[0].annotations
    assert sum(shapely.Polygon(np.reshape(p, (-1, 2))).area for p in annotation.segmentation) == pytest.approx(200)


def test_features_without_geometry_are_left_out_with_one_warning(tmp_path, caplog):
    raster = write_raster(tmp_path / "a.tif")
    nothing = {"type": "Feature", "properties": {}, "geometry": None}
    flat = feature([closed(on_map([1, 1, 9, 9, 1, 1]))])
    vector = write_vector(tmp_path / "a.geojson", [nothing, box_feature(1, 2, 3, 4), flat])
    (annotation,) = read_geo(vector, raster).images[0].annotations
    assert annotation.id == 1
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "left out 2 features without area, such as feature 0"
    ]


def test_points_and_lines_are_left_out_with_a_count(tmp_path, caplog):
    others = [feature([1.0, 2.0], "Point"), feature([[1.0, 2.0], [3.0, 4.0]], "LineString")]
    outlines = read_outlines(write_vector(tmp_path / "a.geojson", [*others, box_feature(5, 5, 9, 9)]))
    assert outlines.ids == [2]
    assert "left out 2 features without area, such as feature 0" in caplog.text


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (feature([[[1.0, 2.0], [3.0, 4.0]]]), "feature 1: broken geometry"),
    ],
)
def test_a_broken_feature_is_named(tmp_path, broken, message):
    raster = write_raster(tmp_path / "a.tif")
    with pytest.raises(InputError, match=message):
        read_geo(write_vector(tmp_path / "a.geojson", [box_feature(1, 2, 3, 4), broken]), raster)


def test_a_truncated_geopackage_is_found(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    geometries = np.array([shapely.to_wkb(shapely.Polygon(on_map(SQUARE[0])))] * 2000)
    file = tmp_path / "a.gpkg"
    pyogrio.raw.write(file, geometries, [], [], geometry_type="Polygon", crs="EPSG:32616")
    content = file.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9):
        file.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=r"a\.gpkg: "):
            read_geo(file, raster)


def test_a_truncated_shapefile_is_found(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    write_vector(tmp_path / "a.geojson", [box_feature(10, 5, 30, 20), box_feature(40, 5, 50, 20)])
    meta, _, geometries, fields = pyogrio.raw.read(tmp_path / "a.geojson")
    file = tmp_path / "a.shp"
    pyogrio.raw.write(
        file, geometries, fields, meta["fields"], geometry_type="Polygon", crs=meta["crs"], driver="ESRI Shapefile"
    )
    assert len(read_geo(file, raster).images[0].annotations) == 2
    content = file.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 120, 20, 0):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf"a\.shp: truncated, it has {length} of"):
            read_geo(file, raster)


def test_a_damaged_text_is_named(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    file = write_vector(tmp_path / "a.geojson", [box_feature(10, 5, 30, 20, kind="a")])
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"kind"', b'"k\xba\xff\xfed"', 1))
    with pytest.raises(InputError, match=r"a\.geojson: "):
        read_geo(file, raster, attribute="kind")


def test_outlines_have_their_numbers_classes_and_coordinate_system(tmp_path):
    features = [box_feature(1, 1, 9, 9, kind=3), box_feature(20, 20, 30, 30, kind=11)]
    found = read_outlines(write_vector(tmp_path / "a.geojson", features), attribute="kind")
    assert (found.ids, found.values, found.crs.to_epsg()) == ([0, 1], ["3", "11"], 32616)
    assert shapely.area(found.geometries).tolist() == pytest.approx([16, 25])
    assert read_outlines(write_vector(tmp_path / "b.geojson", features, code=None)).crs.to_epsg() == 4326
    empty = read_outlines(write_vector(tmp_path / "c.geojson", []))
    assert (len(empty.geometries), empty.ids, empty.values) == (0, [], [])


@pytest.mark.parametrize("name", ["a.geojson", "a;b, c!d.geojson"])
def test_qupaths_list_of_features_is_read(tmp_path, name):
    raster = write_raster(tmp_path / "a.tif")
    kinds = [{"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, {"name": "Stroma"}]
    features = [feature([closed([[1, 1], [9, 1], [9, 9]])], classification=kind) for kind in kinds]
    for content in (features, {"type": "FeatureCollection", "features": features}):
        (tmp_path / name).write_text(json.dumps(content))
        data = read_geo(tmp_path / name, raster, pixels=True, attribute="classification")
        assert data.classes == ["Stroma", "Tumor: Positive"]
        assert [annotation.category for annotation in data.images[0].annotations] == [1, 0]
