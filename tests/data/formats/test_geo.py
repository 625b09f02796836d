"""Outlines on georeferenced rasters: rotated rasters, holes, tiles, classes, and errors for broken files."""

import json
import sys
from itertools import pairwise

import numpy as np
import pycocotools.mask as mask_util
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import Affine

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.geo import read_geo, tile_windows
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.dicts import to_dicts
from tests.helpers.geo_files import (
    SQUARE,
    TURNED,
    UTM,
    box_feature,
    closed,
    feature,
    on_map,
    points_of,
    write_raster,
    write_vector,
)


@pytest.mark.parametrize("transform", [UTM, TURNED], ids=["north up", "rotated and sheared"])
def test_outlines_keep_their_sub_pixel_corners(tmp_path, transform):
    raster = write_raster(tmp_path / "a.tif", transform=transform)
    vector = write_vector(tmp_path / "a.geojson", [feature([closed(on_map(SQUARE[0], transform))])])
    (record,) = read_geo(vector, raster).images
    assert (record.file_name, record.image_id, record.width, record.height) == (str(raster), "a", 100, 80)
    assert record.extra == {}
    (annotation,) = record.annotations
    assert points_of(annotation.segmentation[0]) == points_of(SQUARE[0])
    np.testing.assert_allclose(annotation.box, [20, 30, 40.25, 50.5], atol=1e-4)


def test_a_property_that_may_hold_the_class_is_reported_with_counts(tmp_path, caplog):
    raster = write_raster(tmp_path / "a.tif")
    boxes = [box_feature(10 * n, 10, 10 * n + 8, 20, kind=kind) for n, kind in enumerate(["roof", "pool", "roof"])]
    vector = write_vector(tmp_path / "a.geojson", boxes)
    assert read_geo(vector, raster).classes == ["object"]
    assert (
        "all objects become one class, but their property 'kind' is roof (2), pool (1); add @attribute:kind"
        in caplog.text
    )
    caplog.clear()
    assert read_geo(vector, raster, attribute="kind").classes == ["pool", "roof"]
    assert read_geo(vector, raster, classes=["building"]).classes == ["building"]
    assert not caplog.text


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_outlines_in_pixels_need_no_georeference(tmp_path, suffix, caplog):
    Image.new("RGB", (100, 80)).save(tmp_path / f"a.{suffix}")
    kinds = [{"name": "Tumor", "color": [200, 0, 0]}, {"name": "Stroma", "color": [0, 200, 0]}]
    corners = [[[x, 20], [x + 8, 20], [x + 8, 45], [x, 45]] for x in (0, 10)]
    features = [feature([closed(ring)], classification=kind) for ring, kind in zip(corners, kinds, strict=True)]
    vector = tmp_path / "a.geojson"
    vector.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    data = read_geo(vector, tmp_path / f"a.{suffix}", pixels=True, attribute="classification")
    (record,) = data.images
    assert (data.classes, record.width, record.height) == (["Stroma", "Tumor"], 100, 80)
    assert [annotation.category for annotation in record.annotations] == [1, 0]
    np.testing.assert_allclose(
        [annotation.box for annotation in record.annotations], [[0, 20, 8, 45], [10, 20, 18, 45]]
    )
    read_geo(vector, tmp_path / f"a.{suffix}", pixels=True)
    assert "property 'classification' is Tumor (1), Stroma (1); add @attribute:classification" in caplog.text
    if suffix == "tif":
        with pytest.raises(InputError, match="add @pixels:true"), pytest.warns(match="no geotransform"):
            read_geo(vector, tmp_path / "a.tif")


def test_a_multipolygon_is_one_object(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    parts = [[closed(on_map(part))] for part in ([5, 5, 15, 5, 15, 15], [50, 50, 60, 50, 60, 60])]
    (record,) = read_geo(write_vector(tmp_path / "a.json", [feature(parts, "MultiPolygon")]), raster).images
    (annotation,) = record.annotations
    assert len(annotation.segmentation) == 2
    np.testing.assert_allclose(annotation.box, [5, 5, 60, 60], atol=1)


def test_holes_stay_holes(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    rings = [[10, 10, 70, 10, 70, 60, 10, 60], [20, 20, 20, 30, 30, 30, 30, 20], [45, 25, 45, 50, 60, 50, 60, 25]]
    vector = write_vector(tmp_path / "a.json", [feature([closed(on_map(ring)) for ring in rings])])
    (record,) = read_geo(vector, raster).images
    (annotation,) = record.annotations
    mask = mask_util.decode(mask_util.merge(mask_util.frPyObjects(annotation.segmentation, 80, 100)))
    expected = np.zeros((80, 100), bool)
    expected[10:60, 10:70] = True
    expected[20:30, 20:30] = expected[25:50, 45:60] = False
    np.testing.assert_array_equal(mask, expected)


def test_tiles_cut_outlines_and_cover_them(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    features = [box_feature(30, 30, 50, 50), box_feature(41, 61, 47.5, 70), box_feature(-20, 60, 10, 75)]
    records = read_geo(write_vector(tmp_path / "a.geojson", features), raster, tile=40).images
    assert [record.extra["window"] for record in records] == [
        [x, y, 40, 40] for y in (0, 40) for x in (0, 40, 60)
    ]  # the last column is moved back
    assert [record.image_id for record in records][:2] == ["a_0_0", "a_40_0"]
    boxes = [[tuple(np.round(a.box, 4)) for a in record.annotations] for record in records]
    assert boxes == [
        [(30, 30, 40, 40)],
        [(0, 30, 10, 40)],
        [],
        [(30, 0, 40, 10), (0, 20, 10, 35)],
        [(0, 0, 10, 10), (1, 21, 7.5, 30)],
        [],
    ]
    assert [[a.id for a in record.annotations] for record in records] == [[0], [0], [], [0, 2], [0, 1], []]


def test_slivers_in_a_tile_may_be_left_out(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(
        tmp_path / "a.geojson", [box_feature(36, 10, 46, 20)]
    )  # 4 of 10 columns left of the cut at 40

    def counts(**options):
        return [len(record.annotations) for record in read_geo(vector, raster, tile=40, **options).images[:2]]

    assert counts() == [1, 1]
    assert counts(min_visible=0.5) == [0, 1]
    with pytest.raises(InputError, match="`min_visible` is 50, expected a share from 0 to 1"):
        counts(min_visible=50)


def test_parts_without_a_pixel_after_a_cut_are_left_out(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(39.95, 10, 60, 20)])
    first, second = read_geo(vector, raster, tile=40).images[:2]
    assert (len(first.annotations), len(second.annotations)) == (0, 1)


@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), tile=st.integers(1, 120), data=st.data())
def test_windows_cover_every_pixel_with_the_given_overlap(width, height, tile, data):
    overlap = data.draw(st.integers(0, min(tile - 1, tile // 2 + 1)))
    covered = np.zeros((height, width), int)
    windows = tile_windows(width, height, tile, overlap)
    for x, y, w, h in windows:
        assert (w, h) == (min(tile, width), min(tile, height))
        assert x >= 0
        assert y >= 0
        covered[y : y + h, x : x + w] += 1
    assert covered.min() >= 1
    assert len(set(windows)) == len(windows)
    xs = sorted({x for x, *_ in windows})
    assert all(right - left <= tile - overlap for left, right in pairwise(xs))


def test_folders_are_paired_by_name(tmp_path):
    for part in ("rasters", "outlines"):
        (tmp_path / part).mkdir()
    for name, features in (("b", []), ("a", [box_feature(1, 2, 30, 40)])):
        write_raster(tmp_path / "rasters" / f"{name}.tif")
        write_vector(tmp_path / "outlines" / f"{name}.geojson", features)
    records = get_dataset_dicts(f"geo:{tmp_path / 'outlines'}@{tmp_path / 'rasters'}", filter_empty=False)
    assert [(record["image_id"], len(record["annotations"])) for record in records] == [("a", 1), ("b", 0)]
    write_raster(tmp_path / "rasters" / "c.tif")
    with pytest.raises(InputError, match=r"c\.tif: has no labels, expected .*outlines/c\.geojson or"):
        read_geo(tmp_path / "outlines", tmp_path / "rasters")


def test_one_file_of_outlines_serves_many_rasters(tmp_path):
    folder = tmp_path / "rasters"
    folder.mkdir()
    for index in range(2):
        write_raster(folder / f"{index}.tif", transform=UTM @ Affine.translation(100 * index, 0))
    vector = write_vector(tmp_path / "all.geojson", [box_feature(110, 10, 130, 30)])
    records = read_geo(vector, folder).images
    assert [len(record.annotations) for record in records] == [0, 1]
    assert records[1].annotations[0].box == pytest.approx((10, 10, 30, 30))


def test_classes_come_from_a_property(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    features = [box_feature(1, 1, 9, 9, kind="pool"), box_feature(20, 20, 30, 30, kind="roof")]
    vector = write_vector(tmp_path / "a.geojson", features)
    (record,) = read_geo(vector, raster, classes=["roof", "pool"], attribute="kind").images
    assert [annotation.category for annotation in record.annotations] == [1, 0]
    assert read_geo(vector, raster, attribute="kind").classes == ["pool", "roof"]
    assert read_geo(vector, raster).classes == ["object"]
    with pytest.raises(InputError, match="feature 0: `kind` is 'pool', expected one of roof, road"):
        read_geo(vector, raster, classes=["roof", "road"], attribute="kind")
    with pytest.raises(InputError, match="must name the property"):
        read_geo(vector, raster, classes=["roof", "pool"])
    with pytest.raises(InputError, match=r"no feature has the property 'typ' \(they have kind\)"):
        read_geo(vector, raster, attribute="typ")
    write_vector(vector, [box_feature(1, 1, 9, 9, kind=3), box_feature(1, 1, 9, 9)])
    with pytest.raises(InputError, match="feature 1: has no `kind`"):
        read_geo(vector, raster, attribute="kind")
    write_vector(vector, [box_feature(1, 1, 9, 9, kind=3), box_feature(1, 1, 9, 9, kind=11)])
    assert read_geo(vector, raster, attribute="kind").classes == ["11", "3"]


def test_outlines_beside_the_raster_are_an_error_with_both_extents(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(1, 1, 9, 9)], code=None)  # metres, read as degrees
    with pytest.raises(InputError, match=r"no outline is on .*a\.tif: the 1 extend") as caught:
        read_geo(vector, raster)
    assert "(733601.5, 3725134.5, 733605.5, 3725138.5) in EPSG:4326" in str(caught.value)
    assert "(733601, 3725099, 733651, 3725139) in EPSG:32616" in str(caught.value)
    vector = write_vector(tmp_path / "b.geojson", [box_feature(1000, 1, 1009, 9)])
    with pytest.raises(InputError, match="no outline is on"):
        read_geo(vector, raster)
    assert read_geo(write_vector(tmp_path / "c.geojson", []), raster).images[0].annotations == []


def test_broken_files_are_named(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(1, 2, 3, 4)] * 40)
    with pytest.raises(InputError, match="`overlap` is 40, expected 0 or more and less than `tile`, 40"):
        read_geo(vector, raster, tile=40, overlap=40)
    with pytest.raises(InputError, match="`overlap` is 8, expected 0 without `tile`"):
        read_geo(vector, raster, overlap=8)
    with pytest.raises(InputError, match="expected two files or two folders"):
        read_geo(tmp_path, raster)
    text = vector.read_text()
    for content in ("", "[1]", text[: len(text) // 2], text[:-3]):
        vector.write_text(content)
        with pytest.raises(InputError, match=r"a\.geojson: not a readable vector file"):
            read_geo(vector, raster)
    vector.write_text(text)
    bare = write_raster(tmp_path / "bare.tif", crs=None)
    with pytest.raises(InputError, match=r"bare\.tif: has no coordinate reference system"):
        read_geo(vector, bare)
    raster.write_bytes(raster.read_bytes()[:60])
    with pytest.raises(InputError, match=r"a\.tif: not a readable raster"):
        read_geo(vector, raster)


def test_the_mapper_reads_the_pixels_under_the_outlines(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    with rasterio.open(raster, "r+") as target:
        pixels = target.read()
        pixels[0, 61:70, 41:48] = 200
        target.write(pixels)
    vector = write_vector(tmp_path / "a.geojson", [box_feature(41, 61, 48, 70)])
    for options in ({}, {"tile": 64, "overlap": 16}):
        for record in to_dicts(read_geo(vector, raster, **options)):
            image = read_pixels(record, "L")[:, :, 0]
            assert image.shape == (record["height"], record["width"])
            outlined = np.zeros(image.shape, bool)
            for annotation in record["annotations"]:
                segmentation = mask_util.frPyObjects(annotation["segmentation"], *image.shape)
                outlined |= mask_util.decode(mask_util.merge(segmentation)).astype(bool)
            np.testing.assert_array_equal(outlined, image == 200)


@pytest.mark.parametrize("library", ["rasterio", "pyogrio"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, library):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(1, 2, 3, 4)])
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=r'pip install "maskrcnn_ext\[geo\]"'):
        read_geo(vector, raster)


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "val"])
def test_spacenet_equals_its_coco_file(real_data, split):
    folder = real_data / "aerial_spacenet"
    data = read_geo(folder / "geotiff_labels.geojson", folder / "sample_geotiff.tif", classes=["building"], tile=300)
    records = {record.image_id: record for record in data.images}
    theirs = json.loads((folder / f"instances_{split}.json").read_text())
    for image in theirs["images"]:
        row, column = int(image["file_name"][-8]), int(image["file_name"][-5])
        record = records[f"sample_geotiff_{300 * column}_{300 * row}"]
        expected = [a for a in theirs["annotations"] if a["image_id"] == image["id"]]
        assert len(record.annotations) == len(expected)
        outlines = [a.segmentation for a in record.annotations]
        # The independent conversion counts the pixels whose centre is inside; pycocotools and so Detectron2 round outlines a little
        # differently, by up to a fifth of a pixel: that is seen on a house 20 pixels wide.
        by_centre = [
            mask_util.encode(np.asfortranarray(rasterize([polygon_of(o)], (300, 300), dtype="uint8"))) for o in outlines
        ]
        by_coco = [mask_util.merge(mask_util.frPyObjects(o, 300, 300)) for o in outlines]
        for masks, least in ((by_centre, 0.99), (by_coco, 0.96)):
            overlaps = mask_util.iou(masks, [a["segmentation"] for a in expected], [0] * len(expected))
            match = overlaps.argmax(axis=1)
            assert sorted(match) == list(range(len(expected)))
            assert overlaps.max(axis=1).min() >= least
        boxes = np.array([a["bbox"] for a in expected])[match]
        boxes[:, 2:] += boxes[:, :2]
        assert np.abs(np.array([a.box for a in record.annotations]) - boxes).max() <= 1


def polygon_of(polygons):
    return shapely.MultiPolygon([shapely.Polygon(np.reshape(polygon, (-1, 2))) for polygon in polygons])


def test_outlines_on_no_raster_are_logged(tmp_path, caplog):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(10, 5, 30, 20), box_feature(400, 5, 450, 20)])
    assert len(read_geo(vector, raster).images[0].annotations) == 1
    assert "a.geojson: left out 1 feature outside of all rasters, such as feature 1" in caplog.text


def test_all_faults_are_listed_and_the_rest_is_read(tmp_path):
    for folder in ("rasters", "vectors"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        write_raster(tmp_path / f"rasters/{name}.tif")
        write_vector(tmp_path / f"vectors/{name}.geojson", [box_feature(5, 5, 9, 9)])
    (tmp_path / "rasters/a.tif").write_bytes(b"")
    (tmp_path / "vectors/c.geojson").write_text("{")
    faults = []
    data = read_geo(tmp_path / "vectors", tmp_path / "rasters", faults=faults)
    assert [(record.image_id, len(record.annotations)) for record in data.images] == [("b", 1)]
    assert [part in fault for part, fault in zip(("c.geojson", "a.tif"), faults, strict=True)] == [True, True]
