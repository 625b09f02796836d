"""Outlines on georeferenced rasters: reprojection, rotated rasters, holes, tiles, and what is wrong with broken files."""

import json
import sys
from itertools import pairwise

import numpy as np
import pycocotools.mask as mask_util
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.transform import Affine

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.geo import read_geo, tile_windows
from maskrcnn_ext.data.formats.geo_transform import Grid, read_grid, to_map, without_holes
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.dicts import to_dicts

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


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson"])
def test_a_geopackage_says_what_geojson_says(tmp_path, name):
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
def test_there_and_back_to_the_map(angle, scale, shear, window, points):
    transform = (
        Affine.translation(733601, 3725139) @ Affine.rotation(angle) @ Affine.shear(shear) @ Affine.scale(scale, -scale)
    )
    grid = Grid(tuple(transform)[:6], None, 20000, 20000)
    (mapped,) = to_map([points], grid, [*window, 1000, 1000])
    back = grid.to_pixels(np.reshape(mapped, (-1, 2))) - window
    assert np.abs(back - np.reshape(points, (-1, 2))).max() < 1e-6
    x, y = transform @ (points[0] + window[0], points[1] + window[1])
    assert mapped[:2] == pytest.approx([x, y], abs=1e-6)


def test_predictions_go_back_to_where_the_outlines_came_from(tmp_path):
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


def test_what_a_cut_leaves_without_a_pixel_is_left_out(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(39.95, 10, 60, 20)])
    first, second = read_geo(vector, raster, tile=40).images[:2]
    assert (len(first.annotations), len(second.annotations)) == (0, 1)


@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), tile=st.integers(1, 120), data=st.data())
def test_windows_cover_every_pixel_and_overlap_as_asked(width, height, tile, data):
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


def test_outlines_that_do_not_lie_on_the_raster_are_told_with_both_extents(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(1, 1, 9, 9)], code=None)  # metres, read as degrees
    with pytest.raises(InputError, match=r"none of its 1 outlines lies on .*a\.tif") as caught:
        read_geo(vector, raster)
    assert "(733601.5, 3725134.5, 733605.5, 3725138.5) in EPSG:4326" in str(caught.value)
    assert "(733601, 3725099, 733651, 3725139) in EPSG:32616" in str(caught.value)
    vector = write_vector(tmp_path / "b.geojson", [box_feature(1000, 1, 1009, 9)])
    with pytest.raises(InputError, match="none of its 1 outlines lies on"):
        read_geo(vector, raster)
    assert read_geo(write_vector(tmp_path / "c.geojson", []), raster).images[0].annotations == []


def test_outlines_that_cross_themselves_are_mended(tmp_path):
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
        "left out 2 features without geometry or area, such as feature 0"
    ]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (feature([1.0, 2.0], "Point"), "feature 1: a Point encloses no area"),
        (feature([[1.0, 2.0], [3.0, 4.0]], "LineString"), "feature 1: a LineString encloses no area"),
        (feature([[[1.0, 2.0], [3.0, 4.0]]]), "feature 1: broken geometry"),
    ],
)
def test_a_broken_feature_is_named(tmp_path, broken, message):
    raster = write_raster(tmp_path / "a.tif")
    with pytest.raises(InputError, match=message):
        read_geo(write_vector(tmp_path / "a.geojson", [box_feature(1, 2, 3, 4), broken]), raster)


def test_broken_files_are_named(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(1, 2, 3, 4)] * 40)
    with pytest.raises(InputError, match="`overlap` is 40, expected 0 or more and less than `tile`, 40"):
        read_geo(vector, raster, tile=40, overlap=40)
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
def test_spacenet_is_what_its_coco_file_says(real_data, split):
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


def test_outlines_on_no_raster_are_told(tmp_path, caplog):
    raster = write_raster(tmp_path / "a.tif")
    vector = write_vector(tmp_path / "a.geojson", [box_feature(10, 5, 30, 20), box_feature(400, 5, 450, 20)])
    assert len(read_geo(vector, raster).images[0].annotations) == 1
    assert "a.geojson: 1 features lie on no raster, such as feature 1" in caplog.text


def test_a_damaged_text_is_named(tmp_path):
    raster = write_raster(tmp_path / "a.tif")
    file = write_vector(tmp_path / "a.geojson", [box_feature(10, 5, 30, 20, kind="a")])
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"kind"', b'"k\xba\xff\xfed"', 1))
    with pytest.raises(InputError, match=r"a\.geojson: "):
        read_geo(file, raster, attribute="kind")
