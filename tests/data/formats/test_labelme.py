"""labelme files of versions 3 to 5: every shape, parts of one object, and errors for broken files."""

import base64
import io
import json
import subprocess
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.labelme import read_labelme

TRIANGLE = [[10, 5], [40.5, 15], [20, 35.25]]


@pytest.fixture
def write(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")

    def write(*shapes, name="a", **entry):
        defaults = {"version": "5.4.1", "flags": {"blurred": True}, "imagePath": "a.jpg", "imageData": None}
        sizes = {"imageHeight": 40, "imageWidth": 60}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({**defaults, **sizes, "shapes": list(shapes), **entry}))
        return tmp_path

    return write


def shape(points, kind="polygon", label="leaf", group=None, **rest):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **rest}


def mask_shape(mask, x, y, **rest):
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "png")
    corner = [x + mask.shape[1] - 1, y + mask.shape[0] - 1]
    return shape([[x, y], corner], "mask", mask=base64.b64encode(stream.getvalue()).decode(), **rest)


def test_polygons_keep_their_points(write):
    data = read_labelme(write(shape(TRIANGLE), shape(TRIANGLE, label="bug")))
    assert data.classes == ["bug", "leaf"]
    (record,) = data.images
    assert (record.image_id, record.height, record.width) == ("a", 40, 60)
    assert [annotation.category for annotation in record.annotations] == [1, 0]
    assert record.annotations[0].segmentation == [[10, 5, 40.5, 15, 20, 35.25]]
    assert record.annotations[0].box == (10, 5, 40.5, 35.25)


def test_version_3_has_neither_types_nor_sizes(write):
    old = {"label": "leaf", "points": TRIANGLE, "line_color": None, "fill_color": None}
    folder = write(old, version="3.5.0", imageHeight=None, imageWidth=None)
    assert read_labelme(folder).images[0].annotations[0].segmentation == [[10, 5, 40.5, 15, 20, 35.25]]


def test_drawn_rectangles_are_counted_and_may_be_boxes(write, caplog):
    folder = write(shape([[10, 5], [20, 9]], "rectangle"), shape(TRIANGLE))
    assert all(annotation.segmentation for annotation in read_labelme(folder).images[0].annotations)
    assert "1 of 2 objects is a drawn rectangle, trained as a mask; add @rectangles:boxes" in caplog.text
    box, outline = read_labelme(folder, rectangles="boxes").images[0].annotations
    assert (box.box, box.segmentation) == ((10, 5, 20, 9), None)
    assert outline.segmentation


def test_rectangles_and_circles_become_polygons(write):
    shapes = [
        shape([[25, 26], [5, 6]], "rectangle"),
        shape([[5, 6], [25, 6], [25, 26], [5, 26]], "rectangle"),
        shape([[20, 10], [30, 20], [20, 30], [10, 20]], "oriented_rectangle"),
        shape([[30, 20], [36, 28]], "circle"),
    ]
    annotations = read_labelme(write(*shapes)).images[0].annotations
    boxes = [annotation.box for annotation in annotations]
    np.testing.assert_allclose(boxes, [[5, 6, 25, 26]] * 2 + [[10, 10, 30, 30], [20, 10, 40, 30]], atol=1e-9)
    areas = [polygon_area(annotation.segmentation[0]) for annotation in annotations]
    np.testing.assert_allclose(areas, [400, 400, 200, np.pi * 100], rtol=2e-3)


def polygon_area(points):
    x, y = np.array(points).reshape(-1, 2).T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


@pytest.mark.parametrize(("x", "y"), [(0, 0), (13, 7), (54, 36), (-3, -2)])
@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_starts_at_its_first_point(write, x, y, value):
    patch = np.random.default_rng(0).integers(0, 2, (5, 8)).astype(np.uint8)
    patch[2:, 4:] = 1
    expected = np.zeros((60, 80), np.uint8)
    expected[10 + y : 15 + y, 10 + x : 18 + x] = patch
    (annotation,) = read_labelme(write(mask_shape(patch * value, x, y))).images[0].annotations
    np.testing.assert_array_equal(mask_util.decode(annotation.segmentation), expected[10:50, 10:70])
    ys, xs = np.nonzero(expected[10:50, 10:70])
    assert annotation.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_a_mask_of_one_bit_is_read(write):
    (annotation,) = read_labelme(write(mask_shape(np.ones((3, 4), bool), 2, 1))).images[0].annotations
    assert annotation.box == (2, 1, 6, 4)


def test_parts_of_a_group_are_one_object(write):
    left, right = [[1, 1], [5, 1], [5, 5]], [[20, 20], [30, 20], [30, 30]]
    shapes = [
        shape(left, group=7),
        shape(left),
        shape(right, group=7),
        shape(right, group=7, label="bug"),
        shape(left, group=0),
        shape(right, group=0),
    ]
    annotations = read_labelme(write(*shapes)).images[0].annotations
    assert [len(annotation.segmentation) for annotation in annotations] == [2, 1, 1, 2]
    assert [annotation.category for annotation in annotations] == [1, 1, 0, 1]
    assert annotations[0].box == (1, 1, 30, 30)


def test_a_group_of_a_mask_and_a_polygon_is_their_union(write):
    square = shape([[20, 20], [30, 20], [30, 30], [20, 30]], group=1)
    (annotation,) = (
        read_labelme(write(mask_shape(np.ones((4, 4), np.uint8), 2, 2, group=1), square)).images[0].annotations
    )
    mask = mask_util.decode(annotation.segmentation)
    assert mask.sum() == 16 + 100
    assert annotation.box == (2, 2, 30, 30)


def test_images_may_be_elsewhere(write, tmp_path):
    elsewhere = tmp_path / "photos" / "b"
    elsewhere.mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(elsewhere / "c.png")
    for path, images in (
        ("photos\\b\\c.png", None),
        ("photos/b/c.png", tmp_path),
        ("..\\photos\\b\\c.png", tmp_path),
        ("D:\\work\\c.png", elsewhere),
        ("/home/me/c.png", elsewhere),
    ):
        folder = write(shape(TRIANGLE), imagePath=path)
        assert read_labelme(folder, images).images[0].file_name == str(elsewhere / "c.png")


def test_a_file_without_shapes_is_an_image_without_objects(write):
    write(shape(TRIANGLE))
    folder = write(name="b")
    records = read_labelme(folder).images
    assert [(record.image_id, len(record.annotations)) for record in records] == [("a", 1), ("b", 0)]


def test_a_string_names_it(write, tmp_path):
    folder = write(shape(TRIANGLE))
    for spec in (f"labelme:{folder}", f"labelme:{folder}@{tmp_path}"):
        (record,) = get_dataset_dicts(spec)
        assert record["file_name"] == str(tmp_path / "a.jpg")
        assert record["annotations"][0]["segmentation"] == [[10, 5, 40.5, 15, 20, 35.25]]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (shape([[1, 1], [5, 5]], "cube"), "'cube' encloses no area or is not known"),
        (shape([[1, 1], [5, 5]]), "a polygon does not have 2 points"),
        (shape(TRIANGLE, "rectangle"), "a rectangle does not have 3 points"),
        (shape([[1, 1]], "circle"), "a circle does not have 1 points"),
        (shape([[1, 1], [5, None], [6, 7]]), "`points`: expected numbers"),
        (shape([[1, 1], [5, float("nan")], [6, 7]]), "`points`: expected finite numbers"),
        (shape([1, 2, 3]), r"`points` are not a list of \[x, y\]"),
        (shape(None), r"`points` are not a list"),
        (shape([[1, 1], [2, 2]], "mask"), "`mask` is not a PNG in base64"),
        (shape([[1, 1], [2, 2]], "mask", mask="AAAA"), "`mask` is not a PNG in base64"),
        (shape([[1, 1], [2, 2]], "mask", mask="\u2603"), "`mask` is not a PNG in base64"),
        (mask_shape(np.ones((2, 2, 3), np.uint8), 1, 1), "`mask` has 3 channels"),
        (mask_shape(np.ones((2, 2), np.uint8), 99, 1), "the mask has no pixel"),
        ({"points": TRIANGLE}, "has no `label`"),
    ],
)
def test_a_broken_shape_is_named(write, broken, message):
    with pytest.raises(InputError, match=message) as caught:
        read_labelme(write(shape(TRIANGLE), broken))
    assert "a.json: shape 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_ignored_region_is_a_crowd_of_every_class(write):
    folder = write(shape(TRIANGLE, label="bug"), shape(TRIANGLE), shape([[1, 1], [9, 9]], "rectangle", "__ignore__"))
    for classes in (None, ["bug", "leaf"]):
        data = read_labelme(folder, classes=classes)
        assert data.classes == ["bug", "leaf"]
        found = [(each.category, each.crowd, each.box) for each in data.images[0].annotations[2:]]
        assert found == [(0, True, (1, 1, 9, 9)), (1, True, (1, 1, 9, 9))]
        masks = [mask_util.decode(each.segmentation) for each in data.images[0].annotations[2:]]
        assert [mask.sum() for mask in masks] == [64, 64], "as RLEs, which COCO's tools expect of crowds"


def test_points_and_lines_are_left_out_with_a_count(write, caplog):
    lines = [shape([[1, 1], [5, 5]], "line", "axis"), shape([[1, 1]], "point"), shape(TRIANGLE, "linestrip")]
    data = read_labelme(write(*lines, shape(TRIANGLE)))
    assert data.classes == ["leaf"]
    assert len(data.images[0].annotations) == 1
    assert "3 shapes that enclose no area are left out, such as a line" in caplog.text


def test_listed_classes_come_first_and_others_follow(write):
    folder = write(shape(TRIANGLE, label="bug"), shape(TRIANGLE, label="leaf"))
    (folder / "labels.txt").write_text("__ignore__\n_background_\n stem\nleaf \n\n", newline="\r\n")
    assert read_labelme(folder).classes == ["stem", "leaf", "bug"]


def test_a_label_outside_of_the_classes_is_named(write):
    folder = write(shape(TRIANGLE, label="weed"))
    with pytest.raises(InputError, match=r"a\.json: shape 0: class 'weed', expected one of leaf, bug"):
        read_labelme(folder, classes=["leaf", "bug"])
    assert read_labelme(folder, classes=["leaf", "weed"]).images[0].annotations[0].category == 1


def test_broken_files_are_named(write, tmp_path):
    with pytest.raises(InputError, match=r"says 60 x 41 .*is 60 x 40"):
        read_labelme(write(imageHeight=41))
    with pytest.raises(InputError, match=r"cannot read image .*missing\.jpg"):
        read_labelme(write(imagePath="missing.jpg"))
    for path in ("missing.jpg", "a.json"):
        with pytest.raises(InputError, match="embedded in the JSON"):
            read_labelme(write(imagePath=path, imageData="aGVsbG8="))
    for text, message in (("{", "not a JSON file"), ("[1]", "not a labelme file"), ('{"shapes": []}', "not a labelme")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_labelme(tmp_path)
    (tmp_path / "a.json").unlink()
    with pytest.raises(InputError, match=r"no \*\.json files here"):
        read_labelme(tmp_path)


@pytest.mark.parametrize("path", ["C:\\Users\\me\\pictures\\a.jpg", "/home/me/a.jpg", "../pictures/a.jpg"])
def test_an_image_that_was_moved_along_is_found_beside_its_file(write, path):
    folder = write(shape(TRIANGLE), imagePath=path)
    assert read_labelme(folder).images[0].file_name == str(folder / "a.jpg")
    (folder / "._a.json").write_bytes(b"\0\5\x16\7Mac OS X")  # in archives made on a Mac
    assert len(read_labelme(folder).images) == 1


def test_files_may_be_in_folders(write, tmp_path):
    folder = write(shape(TRIANGLE))
    for place in ("x/one", "x/two"):
        (folder / place).mkdir(parents=True)
        for name in ("a.json", "a.jpg"):
            (folder / place / name).write_bytes((folder / name).read_bytes())
    assert [record.image_id for record in read_labelme(folder).images] == ["a"]
    data = read_labelme(folder / "x")
    assert [record.image_id for record in data.images] == ["one/a", "two/a"]
    assert [record.file_name for record in data.images] == [
        str(folder / f"x/{place}/a.jpg") for place in ("one", "two")
    ]


def test_images_without_a_file_are_counted(write, caplog):
    folder = write(shape(TRIANGLE))
    read_labelme(folder)
    assert not caplog.text
    Image.new("RGB", (60, 40)).save(folder / "b.png")
    assert len(read_labelme(folder).images) == 1
    assert "left out 1 image without labels, such as b.png" in caplog.text


def test_the_command_of_the_error_writes_embedded_images(write, tmp_path):
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").unlink()
    folder = write(shape(TRIANGLE), imagePath="..\\x\\a.jpg", imageData=base64.b64encode(content).decode())
    with pytest.raises(InputError, match="embedded in the JSON") as error:
        read_labelme(folder)
    command = str(error.value).partition("python -c ")[2]
    subprocess.run([sys.executable, "-c", command.strip('"')], check=True)
    assert (tmp_path / "a.jpg").read_bytes() == content
    assert len(read_labelme(folder).images) == 1


def test_other_json_files_and_the_background_are_left_out(write, caplog):
    folder = write(shape(TRIANGLE), shape(TRIANGLE, label="_background_"), shape(TRIANGLE, label="__ignore__"))
    (folder / "settings.json").write_text('{"version": 1}')
    (folder / "list.json").write_text("[1]")
    data = read_labelme(folder)
    assert data.classes == ["leaf"]
    assert [(each.category, each.crowd) for each in data.images[0].annotations] == [(0, False), (0, True)]
    assert f"left out 2 JSON files of another kind, such as {folder}/list.json" in caplog.text
    assert f"1 shape labelled as background is left out, such as {folder}/a.json: shape 1" in caplog.text
