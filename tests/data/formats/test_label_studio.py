"""Label Studio JSON: every shape, which annotation counts, how images are found, and errors that name the place."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.label_studio import read_label_studio
from maskrcnn_ext.ops.rle import decode_rle, rle_area, segmentation_to_rle
from maskrcnn_ext.ops.tool_rle import encode_brush


def region(kind, label="a", **value):
    common = {"id": "r1", "from_name": "x", "to_name": "image", "original_width": 60, "original_height": 40}
    return {**common, "type": f"{kind}labels", "image_rotation": 0, "value": {**value, f"{kind}labels": [label]}}


def task(*regions, image="/data/upload/1/a.png", **others):
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": list(regions)}], **others}


TRIANGLE = region("polygon", points=[[10, 10], [50, 10], [50, 60]], closed=True)


@pytest.fixture
def read(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((40, 60, 3), np.uint8))

    def read(*tasks, **options):
        (tmp_path / "export.json").write_text(json.dumps(tasks))
        return read_label_studio(tmp_path / "export.json", tmp_path / "images", **options)

    return read


def test_every_shape_that_encloses_an_area_is_read(read, caplog):
    mask = np.zeros((40, 60), bool)
    mask[3:6, 50:] = True
    data = read(
        task(
            TRIANGLE,
            region("rectangle", "b", x=50, y=25, width=10, height=50, rotation=0),
            region("rectangle", "b", x=50, y=25, width=10, height=50, rotation=90),
            region("ellipse", "b", x=50, y=50, radiusX=10, radiusY=25, rotation=0),
            region("brush", "a", format="rle", rle=encode_brush(mask)),
            region("keypoint", "b", x=1, y=1, width=1),
            {"type": "choices", "value": {"choices": ["sharp"]}},
        )
    )
    assert data.classes == ["a", "b"]
    polygon, box, turned, ellipse, brush = data.images[0].annotations
    assert polygon.segmentation == [[6, 4, 30, 4, 30, 24]]
    assert (box.category, box.box, box.segmentation, box.id) == (1, (30, 10, 36, 30), None, "r1")
    assert turned.box == pytest.approx((10, 10, 30, 16))  # around its upper left corner
    assert ellipse.box == pytest.approx((24, 10, 36, 30))
    np.testing.assert_array_equal(decode_rle(brush.segmentation), mask)
    assert "1 shape that encloses no area is left out, such as a keypoint" in caplog.text
    assert "1 rotated box became a polygon" in caplog.text


def test_labels_apart_from_shapes_are_read_once(read):
    bare = {**TRIANGLE, "type": "polygon", "value": {"points": TRIANGLE["value"]["points"]}}
    labelled = {**TRIANGLE, "type": "labels", "value": {"points": TRIANGLE["value"]["points"], "labels": ["car"]}}
    data = read(task(bare, labelled))
    assert data.classes == ["car"]
    assert len(data.images[0].annotations) == 1


def test_rectangles_may_be_masks(read):
    rectangle = region("rectangle", x=50, y=25, width=10, height=50)
    (annotation,) = read(task(rectangle), rectangles="masks").images[0].annotations
    assert rle_area(segmentation_to_rle(annotation.segmentation, 40, 60)) == 6 * 20


def test_which_annotation_counts(read):
    one, two = {"result": [TRIANGLE]}, {"result": [TRIANGLE, TRIANGLE]}
    cancelled, truth = {"result": [], "was_cancelled": True}, {"result": [], "ground_truth": True}

    def count(annotations, **options):
        return len(
            read(task(annotations=annotations, predictions=[two]), classes=["a"], **options).images[0].annotations
        )

    assert count([one, two]) == 2
    assert count([one, cancelled]) == 1
    assert count([truth, one]) == 0
    assert count([]) == 0
    assert count([], predictions=True) == 2
    assert count([one], predictions=True) == 1


@pytest.mark.parametrize(
    "url",
    [
        "/data/upload/1/0123abcd-a.png",
        "/data/local-files/?d=folder%2Fa.png",
        "s3://bucket/x/a.png",
        "https://host/a.png?token=3",
        "images/a.png",
        "a.png",
    ],
)
def test_images_are_found_by_their_url(read, url):
    record = read(task(image=url)).images[0]
    assert record.image_id == "a.png"


def test_folders_in_urls_decide(read, tmp_path):
    (tmp_path / "images/b").mkdir()
    cv2.imwrite(str(tmp_path / "images/b/a.png"), np.zeros((4, 6, 3), np.uint8))
    assert [r.image_id for r in read(task(), task(image="s3://x/b/a.png")).images] == ["a.png", "b/a.png"]


def test_ignored_regions_are_crowds(read):
    data = read(task(TRIANGLE, region("rectangle", "__ignore__", x=0, y=0, width=50, height=50)))
    assert data.classes == ["a"]
    assert [(each.crowd, each.segmentation is None) for each in data.images[0].annotations] == [
        (False, False),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({**TRIANGLE, "original_width": 61}, r"task 7, region 0: says 61 x 40 .* is 60 x 40"),
        ({**TRIANGLE, "image_rotation": 90}, "region 0: the image was rotated in Label Studio"),
        (region("polygon", points=[[1, 1], [2, 2]]), "a polygon needs 3 points"),
        (region("polygon", points=[[1, 1], [2, 2], 3]), r"`points` are not a list of \[x, y\]"),
        (region("polygon", points=[[1, 1], [2, 2], ["x", 3]]), "expected numbers"),
        (region("polygon"), "has none of points, rle, radiusX, width"),
        (region("brush", rle=[1, 2]), "a brush RLE that is cut off"),
        (region("brush", rle=[1, 2], format="png"), "brush of format 'png'"),
        (region("rectangle", x=1, y=1, width=0, height=5), "has no area"),
        (region("ellipse", x=1, y=1, radiusX=None), "expected numbers"),
        ({"type": "polygonlabels", "value": {"polygonlabels": ["a", "b"]}}, "expected a list of one label"),
        ({"type": "polygonlabels"}, "`value` is None"),
        ({}, "has no `type`"),
    ],
)
def test_a_broken_region_is_named_or_collected(read, broken, message):
    with pytest.raises(InputError, match=message):
        read(task(broken))
    faults = []
    assert len(read(task(broken, TRIANGLE), faults=faults).images[0].annotations) == 1
    assert len(faults) == 1
    assert "\n" not in faults[0]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"image": "a.png", "id": 1}], "not a JSON export of Label Studio .* not JSON-MIN"),
        ([task(annotations=3)], "task 7: `annotations` are not a list"),
        ([task(annotations=[{"result": 3}])], "task 7: `result` is 3"),
        ([task(image="a.txt")], "task 7: `data` has 0 images and no 'image', expected one"),
        ([task(image="b.png")], "task 7: cannot read image"),
        ([task(), task()], "export.json: image: a.png occurs twice: keep one of them"),
    ],
)
def test_a_broken_task_is_named(read, tasks, message):
    with pytest.raises(InputError, match=message):
        read(*tasks)


def test_the_interface_beside_it_lists_classes_and_names_the_image(read, tmp_path):
    labels = '<Label value="z"/><Label value="__ignore__"/><Label value="long" alias="a"/>'
    (tmp_path / "label_config.xml").write_text(
        f'<View><Image name="i" value="$photo"/><BrushLabels name="b" toName="i">{labels}</BrushLabels>'
        '<KeyPointLabels name="k" toName="i"><Label value="point"/></KeyPointLabels></View>'
    )
    data = {"photo": "/data/upload/1/a.png", "image": "https://example.org/other.png"}
    found = read(
        {"id": 1, "data": data, "annotations": [{"result": [TRIANGLE, region("polygon", "new", **TRIANGLE["value"])]}]}
    )
    assert found.classes == ["z", "a", "new"]
    assert found.images[0].image_id == "a.png"


def test_the_usual_key_decides_between_several_images(read):
    (record,) = read({"id": 1, "data": {"thumbnail": "/b.png", "image": "/a.png"}, "annotations": []}).images
    assert record.image_id == "a.png"
    with pytest.raises(InputError, match="`data` has 2 images and no 'image', expected one"):
        read({"id": 1, "data": {"one": "/b.png", "two": "/a.png"}, "annotations": []})
