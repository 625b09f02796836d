"""What is saved of a prediction shows exactly its objects."""

import json
import sys

import cv2
import numpy as np
import pytest
import shapely
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_util

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.loading import Classes
from maskrcnn_ext.inference.outputs import OUTPUTS, find_output
from maskrcnn_ext.inference.outputs.overlays import overlay
from maskrcnn_ext.inference.outputs.polygons import outline_of
from maskrcnn_ext.inference.outputs.scene import Region, Scene
from maskrcnn_ext.inference.sources import Item
from maskrcnn_ext.ops.rle_masks import RLEMasks

HEIGHT, WIDTH = 40, 60
CLASSES = Classes(("cat/dog", "b"), (1, 2))


def instances(masks, boxes=None):
    """Objects, highest score first, of masks (R, H, W)."""
    masks = np.asarray(masks, dtype=np.uint8)
    found = Instances(masks.shape[1:])
    found.pred_masks = RLEMasks([mask_util.encode(np.asfortranarray(mask)) for mask in masks], masks.shape[1:])
    found.pred_boxes = Boxes(found.pred_masks.boxes() if boxes is None else torch.tensor(boxes))
    found.scores = torch.linspace(0.9, 0.6, len(masks))
    found.pred_classes = torch.arange(len(masks)) % 2
    return found


def scene_of(found, image, file="a/b.png"):
    return Scene(Item("key", "a/b", 1, {"file_name": str(file)}, str(file)), found, CLASSES, lambda: image)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def masks():
    """A ring, a square under its right part, and a lone pixel in the corner."""
    masks = np.zeros((3, HEIGHT, WIDTH), np.uint8)
    cv2.circle(masks[0], (20, 20), 12, 1, -1)
    cv2.circle(masks[0], (20, 20), 6, 0, -1)
    masks[1, 10:30, 25:50] = 1
    masks[2, HEIGHT - 1, WIDTH - 1] = 1
    return masks


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def only(files, name):
    assert list(files) == [name]
    return files[name]


def test_labels_number_the_objects_and_the_highest_score_is_on_top(image, masks):
    labels = decode(only(find_output("labels")(scene_of(instances(masks), image)), "a/b.png"))
    assert labels.dtype == np.uint16
    expected = np.zeros((HEIGHT, WIDTH))
    for number in (3, 2, 1):
        expected[masks[number - 1] > 0] = number
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
def test_more_labels_than_16_bits_hold_make_a_tiff_of_32(image):
    masks = np.zeros((1, 300, 300), np.uint8)
    found = instances(masks)
    pixels = [mask_util.frPyObjects({"size": [300, 300], "counts": [i, 1, 89999 - i]}, 300, 300) for i in range(70000)]
    many = Instances((300, 300), pred_masks=RLEMasks(pixels, (300, 300)), scores=torch.ones(70000))
    labels = decode(only(find_output("labels")(scene_of(many, image)), "a/b.tif"))
    assert labels.ravel(order="F").tolist() == [*range(1, 70001), *[0] * 20000]
    assert len(find_output("labels")(scene_of(found, image))) == 1


def test_splash_keeps_the_colours_of_objects_alone(image, masks):
    splash = decode(only(find_output("splash")(scene_of(instances(masks), image)), "a/b.png"))
    inside = masks.any(axis=0)
    np.testing.assert_array_equal(splash[inside], image[inside])
    assert (splash[~inside] == splash[~inside][:, :1]).all()
    assert splash[~inside].std() > 10


def test_crops_are_the_boxes_and_cutouts_have_the_mask_as_alpha(image, masks):
    boxes = [[7.6, 7.2, 32.4, 33.0], [25.0, 10.0, 50.0, 30.0], [58.5, 38.5, 61.0, 44.0]]
    scene = scene_of(instances(masks, boxes), image)
    crops, cutouts = find_output("crops")(scene), find_output("cutouts")(scene)
    names = ["a/b/001_cat_dog_0.90.png", "a/b/002_b_0.75.png", "a/b/003_cat_dog_0.60.png"]
    assert list(crops) == list(cutouts) == names
    places = [np.s_[7:33, 7:33], np.s_[10:30, 25:50], np.s_[38:40, 58:60]]
    for name, place, mask in zip(names, places, masks, strict=True):
        np.testing.assert_array_equal(decode(crops[name]), image[place])
        cutout = decode(cutouts[name])
        np.testing.assert_array_equal(cutout[..., :3], image[place])
        np.testing.assert_array_equal(cutout[..., 3], 255 * mask[place])


def test_an_overlay_changes_the_objects_and_leaves_the_rest(image, masks):
    before = image.copy()
    scene = scene_of(instances(masks[:1]), image)
    drawn = overlay(scene)
    np.testing.assert_array_equal(image, before)
    changed = (drawn != image).any(axis=2)
    assert changed[masks[0] > 0].all()
    assert not changed[17:24, 17:24].any()  # the hole
    assert not changed[:, 45:].any()


def test_lines_and_letters_grow_with_the_image():
    def painted(side):
        mask = np.zeros((1, side, side), np.uint8)
        mask[0, side // 4 : side // 2, side // 4 : side // 2] = 1
        drawn = overlay(scene_of(instances(mask), np.zeros((side, side, 3), np.uint8)))
        colors = drawn.reshape(-1, 3).max(axis=1)
        return (colors == 255).mean()  # outlines and labels are in full colour

    assert painted(3200) == pytest.approx(painted(1600), rel=0.15)


def test_labels_never_hide_one_another_nor_a_small_object():
    masks = np.zeros((40, 400, 400), np.uint8)
    for number, (y, x) in enumerate(np.argwhere(np.ones((5, 8)))):
        masks[number, 100 + 9 * y : 106 + 9 * y, 100 + 9 * x : 106 + 9 * x] = 1
    image = np.zeros((400, 400, 3), np.uint8)
    drawn = overlay(scene_of(instances(masks), image))
    near = cv2.dilate(masks.any(axis=0).astype(np.uint8), np.ones((5, 5))) > 0
    assert not drawn[~near].any()  # no label fits six pixels


def test_keypoints_are_drawn_and_boxes_where_there_are_no_masks(image):
    found = instances(np.zeros((1, HEIGHT, WIDTH)), [[10.0, 10.0, 50.0, 35.0]])
    found.remove("pred_masks")
    boxes = overlay(scene_of(found, image))
    assert (boxes[30, 10] != image[30, 10]).any()
    assert (boxes[20, 30] == image[20, 30]).all()
    found.pred_keypoints = torch.tensor([[[30.5, 20.5, 1.0]]])
    assert (overlay(scene_of(found, image))[20, 30] != image[20, 30]).any()


def test_tracks_keep_their_colour_whatever_their_score(masks, image):
    found = instances(masks[:2])
    found.track_ids = torch.tensor([7, 3])
    swapped = found[torch.tensor([1, 0])]
    assert scene_of(found, image).colors == scene_of(swapped, image).colors[::-1]


@pytest.mark.parametrize("kind", OUTPUTS)
def test_no_objects_are_shown_as_such(kind, image):
    files = find_output(kind)(scene_of(instances(np.zeros((0, HEIGHT, WIDTH))), image))
    if kind in ("crops", "cutouts"):
        assert files == {}
    elif kind == "polygons":
        assert json.loads(files["a/b.geojson"]) == {"type": "FeatureCollection", "features": []}
    elif kind == "labels":
        assert not decode(files["a/b.png"]).any()
    elif kind == "overlays":
        np.testing.assert_array_equal(decode(files["a/b.png"]), image)
    else:
        assert (np.ptp(decode(files["a/b.png"]), axis=2) == 0).all()


@pytest.mark.parametrize("kind", OUTPUTS)
def test_empty_masks_and_no_masks_show_no_object(kind, image):
    empty_masks = scene_of(instances(np.zeros((2, HEIGHT, WIDTH)), [[5.0, 5.0, 9.0, 9.0]] * 2), image)
    no_masks = Instances(
        (HEIGHT, WIDTH), pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0), pred_classes=torch.zeros(0).long()
    )
    no_objects = find_output(kind)(scene_of(instances(np.zeros((0, HEIGHT, WIDTH))), image))
    assert find_output(kind)(scene_of(no_masks, image)) == no_objects
    files = find_output(kind)(empty_masks)
    if kind == "crops":
        for data in files.values():
            np.testing.assert_array_equal(decode(data), image[5:9, 5:9])
    elif kind == "cutouts":
        assert all(not decode(data)[..., 3].any() for data in files.values())
    elif kind == "polygons":
        features = json.loads(files["a/b.geojson"])["features"]
        assert [feature["properties"]["area"] for feature in features] == [0] * len(features)
    else:
        assert files == no_objects


def test_an_image_of_another_size_than_predicted_is_refused(image, masks):
    with pytest.raises(InputError, match="pixels"):
        find_output("splash")(scene_of(instances(masks), image[:-1]))


def test_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="expected some of overlays, splash"):
        find_output("overlay")


@settings(max_examples=60, deadline=None)
@given(
    mask=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 1)),
    x=st.integers(0, 3),
)
def test_outlines_are_valid_and_enclose_the_pixels(mask, x):
    outline = outline_of(Region(x, 5, mask))
    assert outline.is_valid
    assert outline.area == mask.sum()
    ys, xs = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    np.testing.assert_array_equal(shapely.contains_xy(outline, xs + x, ys + 5), mask > 0)


def polygons(scene):
    return json.loads(only(find_output("polygons")(scene), "a/b.geojson"))


def test_polygons_tell_class_score_area_and_have_holes(image, masks):
    content = polygons(scene_of(instances(masks), image))
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


@pytest.mark.parametrize("window", [None, (100, 200, WIDTH, HEIGHT)])
def test_polygons_of_a_geotiff_lie_on_its_map(tmp_path, image, masks, window):
    pytest.importorskip("pyogrio")
    from maskrcnn_ext.data.formats.geo_vector import read_outlines

    file = write_raster(tmp_path / "a.tif", "EPSG:32633", (0.5, 0, 500_000, 0, -0.5, 5_000_000))
    record = {"file_name": str(file), **({"window": window} if window else {})}
    scene = Scene(Item("key", "a/b", 1, record, str(file)), instances(masks), CLASSES, lambda: image)
    content = polygons(scene)
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    outlines = read_outlines(tmp_path / "a.geojson", "class")
    assert outlines.crs.to_epsg() == 32633
    assert outlines.values == ["cat/dog", "b", "cat/dog"]
    left, top = (500_000, 5_000_000) if window is None else (500_050, 4_999_900)
    assert outlines.geometries[1].equals(shapely.box(left + 12.5, top - 15, left + 25, top - 5))
    assert shapely.geometry.shape(content["features"][0]["geometry"]).exterior.is_ccw  # though the map's y goes up
    assert content["features"][1]["properties"]["area"] == 500


def test_longitude_and_latitude_need_no_crs_and_systems_without_code_become_them(tmp_path, image, masks):
    degrees = write_raster(tmp_path / "d.tif", "EPSG:4326", (1e-5, 0, 15.0, 0, -1e-5, 45.0))
    content = polygons(scene_of(instances(masks), image, degrees))
    assert "crs" not in content
    x0, y0, x1, y1 = shapely.geometry.shape(content["features"][1]["geometry"]).bounds
    assert (x0, y0, x1, y1) == pytest.approx((15.00025, 44.9997, 15.0005, 44.9999), abs=1e-9)

    own = "+proj=tmerc +lat_0=45 +lon_0=15 +k=1 +x_0=0 +y_0=0 +ellps=WGS84 +units=m"
    metres = write_raster(tmp_path / "m.tif", own, (1, 0, -5, 0, -1, 0))
    content = polygons(scene_of(instances(masks), image, metres))
    assert "crs" not in content
    x0, y0, x1, y1 = shapely.geometry.shape(content["features"][1]["geometry"]).bounds
    assert x0 == pytest.approx(15 + 20 / 78_850, abs=1e-6)  # metres in a degree of longitude at 45 degrees north
    assert y1 == pytest.approx(45 - 10 / 111_130, abs=1e-6)


def test_a_tiff_without_georeference_is_in_pixels(tmp_path, image, masks, monkeypatch):
    cv2.imwrite(str(tmp_path / "plain.tif"), image)
    scene = scene_of(instances(masks), image, tmp_path / "plain.tif")
    square = shapely.geometry.shape(polygons(scene)["features"][1]["geometry"])
    assert square.equals(shapely.box(25, 10, 50, 30))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r'pip install "maskrcnn_ext\[geo\]"'):
        find_output("polygons")(scene)
