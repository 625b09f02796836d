"""BDD100K: bitmasks, outlines with curves, RLEs and boxes of Scalabel's JSON, and errors for broken files."""

import json
import logging

import numpy as np
import pycocotools.mask as mask_util
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.bdd100k import read_bdd100k
from maskrcnn_ext.ops.rle import encode_mask

NAME = "0000f77c-6257be58"
SQUARE = {"vertices": [[10, 5], [30, 5], [30, 25], [10, 25]], "types": "LLLL", "closed": True}
TRUNCATED, OCCLUDED, CROWD, IGNORE = 8, 4, 2, 1


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / f"{NAME}.jpg")
    return tmp_path / "images"


@pytest.fixture
def write_json(images, tmp_path):
    def write(*labels, name=f"{NAME}.jpg", config=False, **frame):
        frames = [{"name": name, "attributes": {"weather": "clear"}, "labels": list(labels) or None, **frame}]
        file = tmp_path / "ins_seg.json"
        file.write_text(json.dumps({"frames": frames, "config": {}} if config else frames))
        return file, images

    return write


def label(category="car", **rest):
    return {"id": "0", "category": category, "attributes": {"occluded": False, "truncated": True}, **rest}


def bitmask(*objects):
    """A bitmask like BDD100K's own: background has category 0 but a number and attributes."""
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[..., 1], pixels[..., 3] = CROWD | IGNORE, 1
    for (y0, x0, y1, x1), category, attributes, number in objects:
        pixels[y0:y1, x0:x1] = (category, attributes, number >> 8, number & 255)
    return pixels


@pytest.fixture
def write_bitmask(images, tmp_path):
    def write(pixels, name=NAME):
        file = tmp_path / "bitmasks" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        return tmp_path / "bitmasks", images

    return write


def test_bitmasks(write_bitmask):
    objects = [
        ((2, 3, 10, 20), 3, TRUNCATED | OCCLUDED, 2),
        ((12, 3, 20, 20), 1, 0, 300),
        ((22, 3, 30, 20), 1, CROWD, 301),
        ((5, 30, 30, 40), 8, IGNORE, 65535),
    ]
    data = read_bdd100k(*write_bitmask(bitmask(*objects)))
    assert data.classes == ["pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    (record,) = data.images
    assert (record.image_id, record.height, record.width) == (NAME, 40, 60)
    assert sorted((each.id, each.category, each.crowd) for each in record.annotations) == [
        (2, 2, False),
        (300, 0, False),
        (301, 0, True),
        (65535, 7, True),
    ]
    corners = {number: (x0, y0, x1, y1) for (y0, x0, y1, x1), _, _, number in objects}
    for annotation in record.annotations:
        assert annotation.box == corners[annotation.id]
        x0, y0, x1, y1 = annotation.box
        assert mask_util.area(annotation.segmentation) == (x1 - x0) * (y1 - y0)


def test_a_bitmask_of_background_alone_has_no_objects(write_bitmask):
    assert read_bdd100k(*write_bitmask(bitmask())).images[0].annotations == []


def test_bitmasks_of_videos_are_in_folders(write_bitmask, images):
    (images / "b1c66a42").mkdir()
    name = "b1c66a42/b1c66a42-0000001"
    Image.new("RGB", (60, 40)).save(images / f"{name}.jpg")
    (record,) = read_bdd100k(*write_bitmask(bitmask(((0, 0, 4, 4), 2, 0, 7)), name)).images
    assert (record.image_id, record.file_name) == (name, str(images / f"{name}.jpg"))


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([((0, 0, 4, 4), 2, 0, 7), ((4, 0, 8, 4), 3, 0, 7)], "object 7 has more than one category"),
        ([((0, 0, 4, 4), 2, 0, 7), ((4, 0, 8, 4), 2, CROWD, 7)], "object 7 has more than one category .* or set"),
        ([((0, 0, 4, 4), 11, 0, 7)], "object 7 is of category 11, expected 1 to 8"),
    ],
)
def test_a_broken_bitmask_is_named(write_bitmask, objects, message):
    with pytest.raises(InputError, match=rf"{NAME}\.png: {message}"):
        read_bdd100k(*write_bitmask(bitmask(*objects)))


def test_bitmasks_of_another_kind_or_size_are_named(write_bitmask, tmp_path):
    for pixels in (bitmask()[:, :59], bitmask()[..., :3], bitmask()[..., 0]):
        with pytest.raises(InputError, match=r"expected \(40, 60, 4\)"):
            read_bdd100k(*write_bitmask(np.ascontiguousarray(pixels)))
    write_bitmask(bitmask())
    folders = write_bitmask(bitmask(), "other")
    with pytest.raises(InputError, match=r"cannot read image .*other\.jpg"):
        read_bdd100k(*folders)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no bitmask PNGs"):
        read_bdd100k(tmp_path / "none", folders[1])


@pytest.mark.parametrize("config", [False, True])
def test_outlines_are_parts_of_one_object(write_json, config):
    other = {"vertices": [[40, 10], [50, 10], [50, 20]], "types": "LLL", "closed": True}
    (record,) = read_bdd100k(*write_json(label(poly2d=[SQUARE, other], id="abc"), config=config)).images
    (annotation,) = record.annotations
    assert (record.image_id, annotation.id, annotation.category, annotation.crowd) == (NAME, "abc", 2, False)
    assert annotation.segmentation == [[10, 5, 30, 5, 30, 25, 10, 25], [40, 10, 50, 10, 50, 20]]
    assert annotation.box == (10, 5, 50, 25)


@pytest.mark.parametrize(
    ("types", "codes"),
    [
        ("LLCCLL", "LLCCCL"),  # two control points and a corner
        ("LLCCCL", "LLCCCL"),  # the curve's end marked C as well
        ("LLLLCC", "LLLLCC"),  # the curve closes the outline
        ("LCCLCC", "LCCCCC"),
    ],
)
def test_curves_are_those_that_matplotlib_draws(write_json, types, codes):
    vertices = [[10, 10], [40, 8], [55, 15], [50, 30], [30, 35], [5, 30]]
    outline = {"vertices": vertices, "types": types, "closed": True}
    (annotation,) = read_bdd100k(*write_json(label(poly2d=[outline]))).images[0].annotations
    found = np.reshape(annotation.segmentation[0], (-1, 2))
    moves = [Outline.MOVETO, *(Outline.CURVE4 if code == "C" else Outline.LINETO for code in codes[1:])]
    closing = Outline.CURVE4 if codes.endswith("CC") else Outline.LINETO
    (expected,) = Outline([*vertices, vertices[0]], [*moves, closing]).to_polygons(closed_only=True)
    drawn = [mask_util.frPyObjects([points.ravel().tolist()], 40, 60)[0] for points in (found, expected)]
    assert mask_util.iou(drawn[:1], drawn[1:], [0])[0, 0] > 0.98
    corners = [vertex for vertex, code in zip(vertices, codes, strict=True) if code == "L"]
    assert all(corner in found.tolist() for corner in corners)


def test_a_circle_of_four_curves_is_round(write_json):
    k = 10 * 4 / 3 * (2**0.5 - 1)
    quarter = np.array([[10, 0], [10, k], [k, 10]])
    right = np.array([[0, 1], [-1, 0]])
    turns = [np.eye(2), right, right @ right, right.T]
    points = np.concatenate([quarter @ turn for turn in turns]) + np.array([30, 20])
    outline = {"vertices": points.tolist(), "types": "LCC" * 4, "closed": True}
    (annotation,) = read_bdd100k(*write_json(label(poly2d=[outline]))).images[0].annotations
    radii = np.linalg.norm(np.reshape(annotation.segmentation[0], (-1, 2)) - [30, 20], axis=1)
    np.testing.assert_allclose(radii, 10, atol=0.01)
    assert len(radii) == 65
    np.testing.assert_allclose(annotation.box, [20, 10, 40, 30], atol=1e-6)


def test_an_rle_counts_before_outlines_and_outlines_before_boxes(write_json):
    mask = np.zeros((40, 60), bool)
    mask[3:9, 5:50] = True
    box = {"x1": 12, "y1": 10, "x2": 20, "y2": 30}
    labels = [
        label(rle=encode_mask(mask), poly2d=[SQUARE], box2d=box),
        label(poly2d=[SQUARE], box2d=box),
        label(poly2d=None, box2d=box),
    ]
    rle, outline, box_only = read_bdd100k(*write_json(*labels)).images[0].annotations
    assert (rle.segmentation, rle.box) == (encode_mask(mask), (5, 3, 50, 9))
    assert outline.box == (10, 5, 30, 25)
    assert (box_only.segmentation, box_only.box) == (None, (12, 10, 21, 31))  # the last pixel is inside


def test_names_of_other_releases_and_classes_to_ignore(write_json, caplog):
    names = ["person", "bike", "van", "other vehicle", "trailer", "traffic sign", "drivable area", "drivable area"]
    labels = [label(name, poly2d=[SQUARE]) for name in names]
    labels += [label("rider", poly2d=[SQUARE], attributes={key: True}) for key in ("crowd", "ignored")]
    with caplog.at_level(logging.WARNING):
        data = read_bdd100k(*write_json(*labels))
    found = [(data.classes[each.category], each.crowd) for each in data.images[0].annotations]
    expected = [("pedestrian", 0), ("bicycle", 0), ("car", 0), ("car", 1), ("truck", 1), ("rider", 1), ("rider", 1)]
    assert found == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"{write_json(*labels)[0]}: left out labels of classes without instances: 2 drivable area, 1 traffic sign"
    ]


def test_classes_are_chosen_and_ordered(write_json, write_bitmask):
    files = write_json(label("car", poly2d=[SQUARE]), label("bus", poly2d=[SQUARE]))
    assert [each.category for each in read_bdd100k(*files, classes=["bus"]).images[0].annotations] == [0]
    folders = write_bitmask(bitmask(((0, 0, 4, 4), 3, 0, 7), ((4, 0, 8, 4), 5, 0, 8)))
    assert [each.category for each in read_bdd100k(*folders, classes=["bus", "car"]).images[0].annotations] == [1, 0]
    with pytest.raises(InputError, match="class 'lane', expected some of pedestrian"):
        read_bdd100k(*files, classes=["lane"])


def test_frames_of_videos_with_and_without_folders(write_json, images):
    (images / "video").mkdir()
    Image.new("RGB", (60, 40)).save(images / "video" / "f-1.jpg")
    (record,) = read_bdd100k(*write_json(name="f-1.jpg", videoName="video")).images
    assert (record.image_id, record.annotations) == ("video/f-1", [])
    (record,) = read_bdd100k(*write_json(videoName="video")).images
    assert record.image_id == NAME


def test_a_string_names_both_kinds(write_json, write_bitmask):
    for places in (write_json(label(poly2d=[SQUARE])), write_bitmask(bitmask(((5, 10, 25, 30), 3, 0, 1)))):
        (record,) = get_dataset_dicts("bdd100k:{}@{}".format(*places))
        assert record["annotations"][0]["bbox"] == [10, 5, 30, 25]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (label(), "has no `poly2d`, `rle` or `box2d`"),
        ({"id": "1"}, "has no `category`"),
        (label(poly2d=[{**SQUARE, "types": "LLL"}]), "poly2d 0: 4 vertices of types 'LLL'"),
        (label(poly2d=[SQUARE, {**SQUARE, "types": "LLXL"}]), "poly2d 1: 4 vertices of types 'LLXL'"),
        (label(poly2d=[{**SQUARE, "types": "LLCL"}]), "poly2d 0: vertex 2 is a lone control point"),
        (label(poly2d=[{**SQUARE, "types": "LLLC"}]), "poly2d 0: vertex 3 is a lone control point"),
        (label(poly2d=[{**SQUARE, "closed": False}]), "an open line encloses no area"),
        (label(poly2d=[{**SQUARE, "vertices": [1, 2, 3, 4]}]), "expected `vertices`"),
        (label(poly2d=[{**SQUARE, "vertices": [[1, 2], [3, None], [4, 5], [6, 7]]}]), "expected numbers"),
        (label(poly2d=["x"]), "expected `vertices`"),
        (label(rle={"counts": "11", "size": [40, 61]}), r"an RLE of size \[40, 61\], but its image is 40 x 60"),
        (label(rle={"counts": "11", "size": [40, 60]}), "counts` add up to 2, not to its 40 x 60 pixels"),
        (label(box2d={"x1": 1, "y1": 1, "x2": 2}), "`box2d`: expected numbers"),
        (label(box2d={"x1": 20, "y1": 1, "x2": 2, "y2": 9}), "has no area"),
    ],
)
def test_a_broken_label_is_named(write_json, broken, message):
    with pytest.raises(InputError, match=message) as caught:
        read_bdd100k(*write_json(label(poly2d=[SQUARE]), broken))
    assert f"ins_seg.json: frame '{NAME}.jpg', label 1" in str(caught.value)


def test_broken_json_files_are_named(write_json, images):
    with pytest.raises(InputError, match=r"`size` is .* is 60 x 40"):
        read_bdd100k(*write_json(size={"width": 61, "height": 40}))
    with pytest.raises(InputError, match="leads out of"):
        read_bdd100k(*write_json(name="../a.jpg"))
    with pytest.raises(InputError, match=r"cannot read image .*missing\.jpg"):
        read_bdd100k(*write_json(name="missing.jpg"))
    file, _ = write_json()
    frames = json.loads(file.read_text())
    for text, message in (
        ("{", "not a JSON file"),
        ('{"images": []}', "not a BDD100K file"),
        ("[1]", "not a BDD100K file"),
        (json.dumps(frames * 2), "the frame occurs twice"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_bdd100k(file, images)


def test_all_faults_are_listed_and_the_rest_is_read(write_json, write_bitmask):
    file, images = write_json(label(), label(box2d={"x1": 1, "y1": 2, "x2": 9, "y2": 9}), {"id": 1})
    frames = json.loads(file.read_text())
    file.write_text(json.dumps([*frames, {"name": "missing.jpg", "labels": []}]))
    faults = []
    (record,) = read_bdd100k(file, images, faults=faults).images
    assert len(record.annotations) == 1
    assert [place in fault for place, fault in zip(("missing.jpg", "label 0", "label 2"), faults, strict=True)] == [
        True
    ] * 3
    write_bitmask(bitmask())
    faults = []
    assert len(read_bdd100k(*write_bitmask(bitmask(), "missing"), faults=faults).images) == 1
    assert len(faults) == 1
