"""The doctor of data sets: planted faults are found by their ids and nothing else is; repaired copies have no errors."""

import copy
import html.parser
import json
import shutil

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.cli import main
from maskrcnn_ext.data.doctor import KINDS, SEVERITIES, examine, read_images, view_of
from maskrcnn_ext.data.doctor.hashing import difference_hash, near_pairs, thumbnail
from maskrcnn_ext.data.doctor.outlines import mend_polygons
from maskrcnn_ext.data.doctor.repair import repair
from maskrcnn_ext.data.doctor.segmentation import parse_segmentation, read_counts
from maskrcnn_ext.data.doctor.source import find, of_records
from maskrcnn_ext.data.formats.coco import read_coco
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, annotation_of_mask

SIZE = 96
EXIF_ORIENTATION = 0x0112


def silent(done, total):
    pass


def check(data, folder, **rest):
    view = view_of(data, folder, "set")
    return examine(view, read_images(view, silent), **rest)


def serious(faults):
    """(kind, image id, annotation id) of errors and warnings."""
    return {(f.kind, f.image_id, f.annotation_id) for f in faults if f.severity != "info"}


@pytest.fixture
def rles(shapes, tmp_path):
    """A clean set with RLEs, and the folder of its images, which a test may spoil."""
    folder = tmp_path / "images"
    shutil.copytree(shapes.parent / "images", folder)
    return json.loads(shapes.read_text()), folder


@pytest.fixture
def polygons(rles):
    """A clean set with polygons: the objects' boxes."""
    data, folder = rles
    for annotation in data["annotations"]:
        set_rectangle(annotation, *annotation["bbox"])
    return data, folder


def set_rectangle(annotation, x, y, w, h):
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    annotation.update(bbox=[x, y, w, h], segmentation=[corners], area=w * h, iscrowd=0)


def of_image(data, image_id):
    return [annotation for annotation in data["annotations"] if annotation["image_id"] == image_id]


# Each plants one fault into `data` and `folder` and returns what must be found, as (kind, image id, annotation id).
def missing_file(data, folder):
    (folder / "000003.jpg").unlink()
    return {("image-missing", 3, None)}


def truncated_jpeg(data, folder):
    file = folder / "000003.jpg"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return {("image-corrupt", 3, None)}


def truncated_png(data, folder):
    file = folder / "000003.png"
    Image.open(folder / "000003.jpg").save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    data["images"][2]["file_name"] = file.name
    return {("image-corrupt", 3, None)}


def no_image_at_all(data, folder):
    (folder / "000003.jpg").write_bytes(b"<html>not found</html>")
    return {("image-corrupt", 3, None)}


def wrong_size(data, folder):
    Image.open(folder / "000003.jpg").resize((2 * SIZE, 2 * SIZE)).save(folder / "000003.jpg")
    return {("image-size", 3, None)}


def exif_rotation(data, folder):
    save_turned(folder / "000003.jpg", 6, (SIZE, SIZE // 2))
    data["images"][2]["height"] = SIZE // 2
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != 3]
    data["annotations"].append({"id": 900, "image_id": 3, "category_id": 1})
    set_rectangle(data["annotations"][-1], 10, 20, 30, 8)
    return {("exif-rotation", 3, None)}


def save_turned(file, orientation, size):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.open(file).crop((0, 0, *size)).save(file, exif=exif)


def exif_upside_down(data, folder):
    save_turned(folder / "000003.jpg", 3, (SIZE, SIZE))
    return {("exif-unclear", 3, None)}


def double_image_id(data, folder):
    data["images"].append({**data["images"][2], "file_name": "more.jpg"})
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(folder / "more.jpg")
    return {("image-id-duplicate", 3, None)}


def double_file_name(data, folder):
    data["images"].append({**data["images"][2], "id": 77})
    return {("file-name-duplicate", 77, None)}


def double_annotation_id(data, folder):
    data["annotations"][-1]["id"] = data["annotations"][0]["id"]
    return {("annotation-id-duplicate", data["annotations"][-1]["image_id"], data["annotations"][0]["id"])}


def unknown_category(data, folder):
    data["annotations"][4]["category_id"] = 99
    return {("category-unknown", data["annotations"][4]["image_id"], 5)}


def unknown_image(data, folder):
    data["annotations"][4]["image_id"] = "3"
    return {("image-unknown", "3", 5)}


def double_category(data, folder):
    data["categories"].append({"id": 1, "name": "again"})
    return {("category-duplicate", None, None)}


def class_without_objects(data, folder):
    data["categories"].append({"id": 9, "name": "nothing"})
    return {("class-empty", None, None)}


def rare_class(data, folder):
    data["categories"].append({"id": 9, "name": "rare"})
    data["annotations"][0]["category_id"] = 9
    for number in range(300):
        data["annotations"].append({"id": 1000 + number, "image_id": number % 8 + 1, "category_id": 2})
        set_rectangle(data["annotations"][-1], 2 * (number // 8), 3 * (number % 29), 6, 6)
    return {("class-imbalance", None, None)}


def box_outside(data, folder):
    data["annotations"][4]["bbox"] = [200, 10, 20, 20]
    image = data["annotations"][4]["image_id"]
    return {("box-outside", image, 5), ("box-mask-mismatch", image, 5)}


def box_leaves_image(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 60, 10, 36, 20)
    annotation["bbox"] = [60, 10, 40, 20]
    return {("box-beyond-image", annotation["image_id"], 5)}


def degenerate_box(data, folder):
    data["annotations"][4]["bbox"][2] = 0
    return {("box-degenerate", data["annotations"][4]["image_id"], 5)}


def box_of_nan(data, folder):
    data["annotations"][4]["bbox"][2] = float("nan")
    return {("box-broken", data["annotations"][4]["image_id"], 5)}


def box_as_corners(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 50, 40, 20, 10)
    annotation["bbox"] = [50, 40, 70, 50]
    image = annotation["image_id"]
    return {("box-mask-mismatch", image, 5), ("box-beyond-image", image, 5)}


def box_elsewhere(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 10, 10, 30, 30)
    annotation["bbox"] = [60, 60, 30, 30]
    return {("box-mask-mismatch", annotation["image_id"], 5)}


def mask_larger_than_box(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 10, 10, 40, 40)
    annotation["bbox"] = [10, 10, 30, 40]
    return {("mask-beyond-box", annotation["image_id"], 5)}


def polygon_of_two_points(data, folder):
    data["annotations"][4]["segmentation"].append([1, 2, 30, 40])
    return {("polygon-short", data["annotations"][4]["image_id"], 5)}


def bow_tie(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 10, 10, 40, 40)
    annotation.update(segmentation=[[10, 10, 50, 50, 50, 10, 10, 50]], area=800)
    return {("polygon-crossing", annotation["image_id"], 5)}


def polygon_leaves_image(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 60, 10, 50, 20)
    annotation.update(bbox=[60, 10, 36, 20], area=720)
    return {("polygon-beyond-image", annotation["image_id"], 5)}


def polygon_of_odd_count(data, folder):
    annotation = data["annotations"][4]
    annotation["segmentation"][0].append(3.0)
    return {("segmentation-broken", annotation["image_id"], 5)}


def flat_polygon(data, folder):
    annotation = data["annotations"][4]
    annotation["segmentation"] = annotation["segmentation"][0]
    return {("segmentation-broken", annotation["image_id"], 5)}


def no_mask(data, folder):
    del data["annotations"][4]["segmentation"]
    return {("segmentation-missing", data["annotations"][4]["image_id"], 5)}


def mask_outside(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 200, 200, 20, 20)
    image = annotation["image_id"]
    return {("mask-empty", image, 5), ("box-outside", image, 5), ("polygon-beyond-image", image, 5)}


def crowd_as_polygon(data, folder):
    data["annotations"][4]["iscrowd"] = 1
    return {("crowd-polygon", data["annotations"][4]["image_id"], 5)}


def one_rle(data, folder):
    annotation = data["annotations"][4]
    rle = mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], SIZE, SIZE))
    annotation["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    return {("mask-mixed", annotation["image_id"], 5)}


def object_twice(data, folder):
    data["annotations"].append({**data["annotations"][4], "id": 900})
    return {("instance-duplicate", data["annotations"][4]["image_id"], 900)}


def wrong_area(data, folder):
    data["annotations"][4]["area"] *= 3
    return {("area-mismatch", data["annotations"][4]["image_id"], 5)}


def image_twice(data, folder):
    shutil.copy(folder / "000003.jpg", folder / "copy.jpg")
    data["images"].append({**data["images"][2], "id": 77, "file_name": "copy.jpg"})
    return {("image-duplicate", 77, None)}


def long_box(data, folder):
    annotation = data["annotations"][4]
    set_rectangle(annotation, 5, 5, 88, 3)
    return {("aspect-extreme", annotation["image_id"], 5)}


def many_objects(data, folder):
    for number in range(101):
        data["annotations"].append({"id": 1000 + number, "image_id": 3, "category_id": 1 + number % 5})
        set_rectangle(data["annotations"][-1], 8 * (number % 11), 8 * (number // 11), 6, 6)
    return {("objects-many", 3, None)}


def way_out_of_the_folder(data, folder):
    data["images"][2]["file_name"] = "../images/000003.jpg"
    return {("image-broken", 3, None)}


def no_size(data, folder):
    del data["images"][2]["height"]
    return {("image-broken", 3, None)}


def ignored(data, folder):
    data["annotations"][4]["ignore"] = 1
    return {("annotation-ignored", data["annotations"][4]["image_id"], 5)}


def broken_keypoints(data, folder):
    data["annotations"][4]["keypoints"] = [1, 2]
    return {("keypoints-broken", data["annotations"][4]["image_id"], 5)}


PLANTED = [
    missing_file, truncated_jpeg, truncated_png, no_image_at_all, wrong_size, exif_rotation, exif_upside_down,
    double_image_id, double_file_name, double_annotation_id, unknown_category, unknown_image, double_category,
    class_without_objects, rare_class, box_outside, box_leaves_image, degenerate_box, box_of_nan, box_as_corners,
    box_elsewhere, mask_larger_than_box, polygon_of_two_points, bow_tie, polygon_leaves_image, polygon_of_odd_count,
    flat_polygon, no_mask, mask_outside, crowd_as_polygon, one_rle, object_twice, wrong_area, image_twice, long_box,
    many_objects, way_out_of_the_folder, no_size, ignored, broken_keypoints,
]  # fmt: skip
# What a repair has no say in: proportions, and what only a look at the images tells.
STAY = {
    "class-empty",
    "class-imbalance",
    "aspect-extreme",
    "objects-many",
    "mask-mixed",
    "image-duplicate",
    "exif-unclear",
}


def test_a_clean_set_has_no_faults(rles):
    assert serious(check(*rles)) == set()


def test_a_clean_set_of_polygons_has_no_faults(polygons):
    assert serious(check(*polygons)) == set()


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_alone_and_repaired(polygons, plant, tmp_path):
    data, folder = polygons
    expected = plant(data, folder)
    before = copy.deepcopy(data)
    view = view_of(data, folder, "set")
    pixels = read_images(view, silent)
    faults = examine(view, pixels)
    assert serious(faults) == expected
    assert all(fault.mend for fault in faults)

    mended, log = repair(data, folder, faults, pixels)
    assert json.dumps(data) == json.dumps(before), "the input is left as it is"
    left = check(mended, folder)
    assert {kind for kind, *_ in serious(left)} <= STAY, log
    assert bool(log) == any(kind not in STAY for kind, *_ in expected)
    file = tmp_path / "mended.json"
    file.write_text(json.dumps(mended))
    read = read_coco(file, folder)  # strict
    assert sum(len(record.annotations) for record in read.images) == len(mended["annotations"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rle: rle.update(counts=rle["counts"][:-2]), "counts"),
        (lambda rle: rle.update(size=[SIZE, SIZE + 1]), "add up to 9216, not to its 96 x 97 pixels"),
        (lambda rle: rle.update(size=[2 * SIZE, SIZE // 2]), "an RLE of 192 x 48 in an image of 96 x 96"),
        (lambda rle: rle.update(counts=[5, 5]), "add up to 10"),
        (lambda rle: rle.update(counts=[-5, SIZE * SIZE + 5]), "not all whole numbers of at least 0"),
        (lambda rle: rle.update(counts="\N{SNOWMAN}"), "which no RLE has"),
        (lambda rle: rle.update(counts=7), "a int, expected a list or a text"),
        (lambda rle: rle.pop("size"), "expected [height, width]"),
    ],
)
def test_a_broken_rle_is_found_and_dropped(rles, change, message):
    data, folder = rles
    change(data["annotations"][4]["segmentation"])
    view = view_of(data, folder, "set")
    faults = examine(view)
    assert serious(faults) == {("segmentation-broken", data["annotations"][4]["image_id"], 5)}
    assert message in next(f.message for f in faults if f.kind == "segmentation-broken")
    mended, _ = repair(data, folder, faults, {})
    assert serious(examine(view_of(mended, folder, "set"))) == set()
    assert len(mended["annotations"]) == len(data["annotations"]) - 1


def test_an_empty_rle_is_found(rles):
    data, folder = rles
    data["annotations"][4]["segmentation"]["counts"] = [SIZE * SIZE]
    assert serious(examine(view_of(data, folder, "set"))) == {("mask-empty", data["annotations"][4]["image_id"], 5)}


def test_boxes_without_masks_are_one_info(rles):
    data, folder = rles
    for annotation in data["annotations"]:
        del annotation["segmentation"]
    faults = examine(view_of(data, folder, "set"))
    assert serious(faults) == set()
    assert [f.kind for f in faults if f.severity == "info"] == ["segmentation-none"]


def test_garbage_is_reported_and_never_raises(tmp_path):
    garbage = [None, 3, "x", [], {}, {"id": True}, {"id": [1], "image_id": {}, "category_id": []}]
    garbage += [
        {"id": 1, "segmentation": value, "bbox": value, "keypoints": value} for value in (True, "x", [[]], [None])
    ]
    data = {"images": garbage, "annotations": garbage, "categories": garbage}
    faults = check(data, tmp_path)
    assert {"image-broken", "annotation-broken", "category-broken", "box-broken"} <= {f.kind for f in faults}
    mended, _ = repair(data, tmp_path, faults, {})
    assert (mended["images"], mended["annotations"], mended["categories"]) == ([], [], [])
    assert check({"images": [], "annotations": [], "categories": []}, tmp_path) == []


def test_every_kind_has_a_severity_a_title_and_a_mend():
    for kind in KINDS.values():
        assert kind.severity in SEVERITIES
        assert kind.title
        assert kind.mend


# Pixels that are there twice


def test_leaks_are_found_exact_and_near(polygons, tmp_path):
    data, folder = polygons
    view = view_of(data, folder, "train")
    others = tmp_path / "val"
    others.mkdir()
    Image.open(folder / "000002.jpg").save(others / "same.png")  # other bytes, the same pixels
    Image.open(folder / "000005.jpg").resize((130, 130)).point(lambda v: v * 0.9 + 10).save(
        others / "like.jpg", quality=60
    )
    images = [{"id": n, "file_name": name, "height": 1, "width": 1} for n, name in enumerate(("same.png", "like.jpg"))]
    other = view_of({"images": images, "annotations": [], "categories": []}, others, "val")
    pixels = read_images(view, silent)
    faults = examine(view, pixels, other, read_images(other, silent))
    assert serious(faults) == {("leak-exact", 2, None), ("leak-near", 5, None)}
    assert all(fault.other.path.parent == others for fault in faults if fault.kind.startswith("leak"))
    mended, log = repair(data, folder, faults, pixels)
    assert [image["id"] for image in mended["images"]] == [1, 3, 4, 5, 6, 7, 8]
    assert any("leak-exact" in line for line in log)


def test_different_images_are_not_near(rles):
    _, folder = rles
    images = [Image.open(path) for path in sorted(folder.glob("*.jpg"))]
    blank = [Image.new("RGB", (50, 50), color) for color in ("black", "white")]
    images += blank
    bits = np.stack([difference_hash(image) for image in images])
    thumbs = np.stack([thumbnail(image) for image in images])
    assert list(near_pairs(bits, thumbs, 0)) == []
    twice = np.concatenate([bits, bits]), np.concatenate([thumbs, thumbs])
    count = len(images) - len(blank)
    assert set(near_pairs(*twice, len(images))) == {(len(images) + n, n) for n in range(count)}


def test_16_bit_images_keep_their_range():
    values = np.random.default_rng(0).integers(0, 65535, (40, 40), np.uint16)
    assert np.ptp(thumbnail(Image.fromarray(values))) > 5000


# Repairs


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_objects_turn_with_their_image(tmp_path, orientation, form):
    """The mask is drawn into the image: after the repair, it must be where Pillow shows it."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:12, 30:50] = 1
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(mask * 255).save(tmp_path / "a.png", exif=exif)
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [30, 5, 2, 0, 0, 0]}
    set_rectangle(annotation, 30, 5, 20, 7)
    if form == "rle":
        rle = mask_util.encode(np.asfortranarray(mask))
        annotation["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 60}
    data = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "a"}]}
    view = view_of(data, tmp_path, "set")
    pixels = read_images(view, silent)
    faults = examine(view, pixels)
    assert serious(faults) == {("exif-rotation", 1, None)}
    mended, _ = repair(data, tmp_path, faults, pixels)
    assert serious(check(mended, tmp_path)) == set()
    shown = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE) > 127
    (found,) = mended["annotations"]
    placed = parse_segmentation(found["segmentation"], *shown.shape)
    np.testing.assert_array_equal(mask_util.decode(placed.rle), shown)
    ys, xs = np.nonzero(shown)
    np.testing.assert_allclose(found["bbox"], [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1])
    x, y, seen, *rest = found["keypoints"]
    assert (x in (xs.min(), xs.max()), y in (ys.min(), ys.max()), seen, rest) == (True, True, 2, [0, 0, 0])


def test_objects_that_lie_on_the_turned_image_stay(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("L", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    annotation = {"id": 1, "image_id": 1, "category_id": 1}
    set_rectangle(annotation, 5, 45, 20, 10)  # below the 40 rows of the record
    image = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}
    data = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "a"}]}
    view = view_of(data, tmp_path, "set")
    pixels = read_images(view, silent)
    mended, _ = repair(data, tmp_path, examine(view, pixels), pixels)
    assert (mended["images"][0]["width"], mended["images"][0]["height"]) == (40, 60)
    assert mended["annotations"][0]["bbox"] == [5, 45, 20, 10]
    assert serious(check(mended, tmp_path)) == set()


def test_objects_scale_with_their_image(rles):
    data, folder = rles
    wrong_size(data, folder)
    view = view_of(data, folder, "set")
    pixels = read_images(view, silent)
    mended, log = repair(data, folder, examine(view, pixels), pixels)
    assert "scaled by 2" in log[0]
    for old, new in zip(of_image(data, 3), of_image(mended, 3), strict=True):
        assert new["bbox"] == [2 * value for value in old["bbox"]]
        assert new["area"] == 4 * old["area"]
        assert new["segmentation"]["size"] == [2 * SIZE, 2 * SIZE]
    assert of_image(mended, 4) == of_image(data, 4)
    assert serious(check(mended, folder)) == set()


def test_two_records_of_a_file_become_one_with_the_objects_of_both(polygons):
    data, folder = polygons
    double_file_name(data, folder)
    moved = of_image(data, 3)[-1]["id"]
    of_image(data, 3)[-1]["image_id"] = 77
    mended, _ = repair(data, folder, check(data, folder), {})
    assert [image["id"] for image in mended["images"]] == list(range(1, 9))
    assert moved in [annotation["id"] for annotation in of_image(mended, 3)]
    assert len(mended["annotations"]) == len(data["annotations"])


points = st.lists(st.tuples(st.floats(-30, 90), st.floats(-30, 90)), min_size=3, max_size=9)


@settings(max_examples=60, deadline=None)
@given(points=points)
def test_mended_polygons_are_valid_inside_and_cover_the_same_area(points):
    outline = np.array(points)
    mended = mend_polygons([outline], 48, 64)
    shapes = [shapely.Polygon(np.array(polygon).reshape(-1, 2)) for polygon in mended]
    frame = shapely.box(0, 0, 64, 48)
    expected = shapely.make_valid(shapely.Polygon(outline)).intersection(frame)
    assert all(shape.is_valid for shape in shapes)
    assert all(frame.buffer(1e-6).covers(shape) for shape in shapes)
    # Slivers of less than half a square pixel are left out.
    assert shapely.union_all(shapes).symmetric_difference(expected).area <= 0.5 * 30


def test_a_hole_is_cut_not_filled():
    outer = [0, 0, 20, 0, 20, 20, 0, 20, 0, 0]
    inner = [5, 5, 5, 15, 15, 15, 15, 5, 5, 5]  # drawn in one line with the outer
    mended = mend_polygons([np.array(outer + inner, float).reshape(-1, 2)], 30, 30)
    assert len(mended) > 1
    mask = mask_util.decode(mask_util.merge(mask_util.frPyObjects(mended, 30, 30)))
    assert mask[10, 10] == 0
    assert mask[2, 2] == 1
    assert abs(int(mask.sum()) - 300) < 20


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_counts_are_read_as_pycocotools_writes_them(seed, share):
    mask = np.random.default_rng(seed).random((13, 17)) < share
    runs = read_counts(mask_util.encode(np.asfortranarray(mask, np.uint8))["counts"].decode())
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    np.testing.assert_array_equal(values.reshape(17, 13).T, mask)


# Where data sets come from


def test_other_formats_are_checked_through_their_records(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    square = {"name": "polygon", "all_points_x": [5, 25, 25, 5], "all_points_y": [5, 5, 25, 25]}
    bow = {"name": "polygon", "all_points_x": [30, 50, 50, 30], "all_points_y": [5, 25, 5, 25]}
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in (square, square, bow)]
    entries = {"a.png1": {"filename": "a.png", "size": 1, "regions": regions}}
    (tmp_path / "via.json").write_text(json.dumps(entries))
    found = find(f"via:{tmp_path / 'via.json'}@{tmp_path}")
    faults = check(found.data, found.folder)
    assert serious(faults) == {("instance-duplicate", "a.png", 2), ("polygon-crossing", "a.png", 3)}
    with pytest.raises(InputError, match="--images is for COCO files"):
        find(f"via:{tmp_path / 'via.json'}@{tmp_path}", tmp_path)


def test_a_registered_coco_set_is_read_leniently(rles, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from maskrcnn_ext.data import register

    data, folder = rles
    unknown_category(data, folder)
    (tmp_path / "a.json").write_text(json.dumps(data))
    register("doctor_test", format="coco", json=tmp_path / "a.json", images=folder)
    try:
        found = find("doctor_test")
        assert ("category-unknown", data["annotations"][4]["image_id"], 5) in serious(check(found.data, found.folder))
    finally:
        DatasetCatalog.remove("doctor_test")
        MetadataCatalog.remove("doctor_test")


@pytest.fixture
def stack(tmp_path):
    """Records of three windows of one array file, the third of which is beyond its end."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 4000, (30, 60), np.uint16))
    mask = np.zeros((30, 20), bool)
    mask[5:25, 4:16] = True
    images = []
    for number in range(3):
        window = [20 * number, 0, 20, 30] if number < 2 else [50, 0, 20, 30]
        annotations = [annotation_of_mask(mask, 0, id="seven")]
        images.append(ImageRecord(str(tmp_path / "a.npy"), number, 30, 20, annotations, {"window": window}))
    return DataSet(["thing"], images)


def test_windows_of_one_file_are_images_of_their_own(stack):
    found = of_records(stack, "stack")
    assert [entry["id"] for entry in found.data["annotations"]] == [1, 2, 3], "names that are taken become numbers"
    faults = check(found.data, found.folder)
    assert serious(faults) == {("image-corrupt", 2, None)}
    assert "window" in faults[0].message


def test_a_copy_cannot_say_what_coco_cannot(stack, capsys, tmp_path):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from maskrcnn_ext.data.dicts import to_dicts

    DatasetCatalog.register("doctor_stack", lambda: to_dicts(stack))
    MetadataCatalog.get("doctor_stack").set(thing_classes=["thing"])
    try:
        assert main(["check-data", "doctor_stack", "--fix", str(tmp_path / "b.json")]) == 2
        assert "COCO JSON, which has no slices or windows" in capsys.readouterr().err
        assert main(["check-data", "doctor_stack", "--report", str(tmp_path / "page.html")]) == 1
        assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 0, "its only fault cannot be shown"
    finally:
        DatasetCatalog.remove("doctor_stack")
        MetadataCatalog.remove("doctor_stack")


def test_keypoints_of_other_formats_keep_their_place_in_coco(tmp_path):
    box = Annotation(0, (1.0, 2.0, 9.0, 9.0), keypoints=[3.5, 4.5, 2.0])
    data = DataSet(["a"], [ImageRecord(str(tmp_path / "a.png"), 1, 10, 10, [box])], None, ["nose"], [])
    (tmp_path / "a.json").write_text(json.dumps(of_records(data, "set").data))
    (record,) = read_coco(tmp_path / "a.json", tmp_path).images
    assert record.annotations[0].keypoints == box.keypoints
    assert record.annotations[0].box == box.box


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "not a COCO file"),
        ('{"images": 3, "annotations": [], "categories": []}', "not a COCO"),
    ],
)
def test_files_that_are_not_coco_are_one_line(tmp_path, text, message, capsys):
    (tmp_path / "a.json").write_text(text)
    assert main(["check-data", str(tmp_path / "a.json")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# The command


def test_the_command_lists_mends_and_reports(polygons, tmp_path, capsys):
    """Twenty faults at once: each is found, the copy has none of them left, the page needs no other file."""
    data, folder = polygons
    kinds = plant_twenty(data, folder)
    file, fixed, page = tmp_path / "a.json", tmp_path / "out/fixed.json", tmp_path / "out/page.html"
    file.write_text(json.dumps(data))
    arguments = ["check-data", str(file), "--images", str(folder)]
    assert main([*arguments, "--fix", str(fixed), "--report", str(page)]) == 1
    output = capsys.readouterr()
    for kind, image_id, annotation_id in kinds:
        section = output.out[output.out.index(f" {kind} (") :].split("\n\n")[0]
        assert f"\n  mend: {KINDS[kind].mend}\n" in section
        assert f"image {image_id!r}" in section
        assert annotation_id is None or f"annotation {annotation_id!r}:" in section
    assert "it has 0 errors" in output.out
    assert f"{len(data['images'])} of {len(data['images'])} images read" in output.err
    assert json.loads(file.read_text()) == data, "never in place"

    assert main(["check-data", str(fixed), "--images", str(folder)]) == 0
    assert main(["check-data", str(fixed), "--images", str(folder), "--fail-on", "warning"]) == 1, "the image with EXIF"
    assert main([*arguments, "--fix", str(fixed)]) == 2, "never overwrites"
    assert "is there already" in capsys.readouterr().err
    assert_self_contained(page.read_text(), kinds)


def plant_twenty(data, folder):
    """Faults in different images and annotations, so that none hides another."""
    annotations = data["annotations"]
    ids = [a["id"] for a in annotations if a["image_id"] not in (3, 6, 7)][:12]
    by_id = {a["id"]: a for a in annotations}
    planted = [
        ("box-degenerate", lambda a: a["bbox"].__setitem__(2, 0)),
        ("box-broken", lambda a: a.update(bbox=[1, 2, 3])),
        ("box-outside", lambda a: a.update(bbox=[200, 200, 20, 20])),
        ("box-beyond-image", lambda a: (set_rectangle(a, 60, 10, 36, 20), a.update(bbox=[60, 10, 40, 20]))),
        ("mask-beyond-box", lambda a: (set_rectangle(a, 10, 11, 40, 40), a.update(bbox=[10, 11, 30, 40]))),
        ("polygon-short", lambda a: a["segmentation"].append([1, 1, 5, 5])),
        (
            "polygon-crossing",
            lambda a: a.update(segmentation=[[10, 10, 50, 50, 50, 10, 10, 50]], bbox=[10, 10, 40, 40]),
        ),
        ("segmentation-broken", lambda a: a["segmentation"][0].append(1)),
        ("segmentation-missing", lambda a: a.pop("segmentation")),
        ("category-unknown", lambda a: a.update(category_id=99)),
        ("annotation-ignored", lambda a: a.update(ignore=True)),
        ("area-mismatch", lambda a: a.update(area=1e6)),
    ]
    expected = set()
    for own, (kind, change) in zip(ids, planted, strict=True):
        change(by_id[own])
        expected.add((kind, by_id[own]["image_id"], own))
    annotations.append({**by_id[ids[10]], "id": 901, "image_id": 555})
    annotations.append({"id": 902, "image_id": 8, "category_id": 1})
    set_rectangle(annotations[-1], 20, 20, 30, 40)
    annotations.append({**copy.deepcopy(annotations[-1]), "id": 903})
    annotations.append({"id": 902, "image_id": 8, "category_id": 2})
    set_rectangle(annotations[-1], 1, 70, 90, 3)
    expected |= {("image-unknown", 555, 901), ("instance-duplicate", 8, 903)}
    expected |= {("annotation-id-duplicate", 8, 902), ("aspect-extreme", 8, 902)}
    expected |= truncated_jpeg(data, folder)
    shutil.copy(folder / "000006.jpg", folder / "copy.jpg")
    data["images"].append({**data["images"][5], "id": 77, "file_name": "copy.jpg"})
    data["images"].append({**data["images"][6], "id": 78, "file_name": "gone.jpg"})
    save_turned(folder / "000007.jpg", 3, (SIZE, SIZE))
    expected |= {("image-duplicate", 77, None), ("image-missing", 78, None), ("exif-unclear", 7, None)}
    assert len(expected) == 20
    return expected


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.images = [], 0

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]
        self.images += tag == "img"


def assert_self_contained(text, kinds):
    links = Links()
    links.feed(text)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert text.count("<svg") == 3
    assert links.images >= 15
    assert all(f" {kind} (" in text for kind, *_ in kinds)
    assert len(text) < 2_000_000


def test_without_images_nothing_is_opened(polygons, tmp_path, capsys):
    data, _ = polygons
    (tmp_path / "a.json").write_text(json.dumps(data))
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ["check-data", str(tmp_path / "a.json"), "--images", str(empty)]
    assert main([*arguments, "--no-images"]) == 0
    assert capsys.readouterr().err == ""
    assert main(arguments) == 1
    assert "image-missing (8)" in capsys.readouterr().out
    assert main([*arguments, "--no-images", "--against", str(tmp_path / "a.json")]) == 2


def test_a_set_without_images_has_a_page(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert main(["check-data", str(tmp_path / "a.json"), "--report", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "0 images with 0 objects" in text
    assert "<svg" not in text


def test_names_from_the_file_are_text_on_the_page(tmp_path):
    """Annotation files come from elsewhere: a name must not become markup, nor a formula of the charts."""
    evil = "<script>alert(1)</script> $x^2$"
    images = [{"id": 1, "file_name": f"{evil}.jpg", "height": 9, "width": 9}]
    data = {"images": images, "annotations": [], "categories": [{"id": 1, "name": evil}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert main(["check-data", str(tmp_path / "a.json"), "--report", str(tmp_path / "page.html")]) == 1
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x^2$" in text


def test_what_cannot_be_written_is_one_line(shapes, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    name = f"coco:{shapes}@{shapes.parent / 'images'}"
    for option in ("--fix", "--report"):
        assert main(["check-data", name, "--no-images", option, str(tmp_path / "file/a")]) == 2
        assert "cannot be written" in capsys.readouterr().err


def test_a_set_against_itself_is_all_leaks(shapes, capsys):
    name = f"coco:{shapes}@{shapes.parent / 'images'}"
    assert main(["check-data", name, "--against", name]) == 1
    assert "leak-exact (8)" in capsys.readouterr().out


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ["balloon", "coco_open", "fruits_nuts", "kudzu_bugs", "nuclei_dsb2018"])
def test_real_sets_have_no_errors_before_or_after_a_repair(real_data, folder):
    found = find(str(real_data / folder / "instances_val.json"))
    view = view_of(*found)
    faults = examine(view)
    assert [fault for fault in faults if fault.severity == "error"] == []
    mended, _ = repair(found.data, found.folder, faults, {})
    assert len(mended["annotations"]) == len(found.data["annotations"])
    left = {fault.kind for fault in examine(view_of(mended, found.folder, "set")) if fault.severity == "warning"}
    assert not left & {"polygon-crossing", "polygon-beyond-image", "box-beyond-image"}
    untouched = sum(a == b for a, b in zip(found.data["annotations"], mended["annotations"], strict=True))
    assert untouched >= 0.98 * len(mended["annotations"])
