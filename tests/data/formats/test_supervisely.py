"""Supervisely projects: every shape, holes, and errors that name the place."""

import json
import math
import shutil

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.supervisely import read_supervisely
from maskrcnn_ext.ops.rle import decode_rle, rle_area, segmentation_to_rle

# What supervisely.Bitmap.data_2_base64 writes for a ring of 3 x 3 pixels, from the documentation of that function.
RING = "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTMSa44sKHhISMDuxpTYrr03F6gDIOnq5/LOqeEJgDM5ht6"  # noqa: E501


def shape(kind, title="cat", *, exterior=None, interior=(), **others):
    points = {} if exterior is None else {"points": {"exterior": exterior, "interior": list(interior)}}
    return {"id": 5, "classTitle": title, "geometryType": kind, **points, **others}


TRIANGLE = shape("polygon", exterior=[[1.5, 2], [10, 2], [10, 12.25]])


@pytest.fixture
def read(tmp_path):
    for part in ("ann", "img"):
        (tmp_path / "ds" / part).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "ds/img/a.png"), np.zeros((40, 60, 3), np.uint8))

    def read(*objects, meta=None, size=(40, 60), **options):
        meta = meta or {"classes": [{"title": "dog", "shape": "polygon"}, {"title": "cat", "shape": "any"}], "tags": []}
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        content = {"size": {"height": size[0], "width": size[1]}, "objects": list(objects)}
        (tmp_path / "ds/ann/a.png.json").write_text(json.dumps(content))
        return read_supervisely(tmp_path, **options)

    return read


def test_every_shape_that_encloses_an_area_is_read(read, caplog):
    hole = [[22, 12], [28, 12], [28, 18], [22, 18]]
    data = read(
        TRIANGLE,
        shape("rectangle", "dog", exterior=[[15, 26], [5.5, 6]]),
        shape("polygon", exterior=[[20, 10], [30, 10], [30, 20], [20, 20]], interior=[hole]),
        shape("bitmap", bitmap={"data": RING, "origin": [7, 3]}),
        shape("alpha_mask", bitmap={"data": RING, "origin": [7, 3]}),
        {**shape("oriented_bbox"), "points": [[20, 10], [40, 20]], "angle": math.pi / 2},
        shape("point", exterior=[[1, 1]]),
    )
    assert data.classes == ["dog", "cat"]
    assert data.images[0].image_id == "ds/a.png"
    polygon, box, ring, bitmap, alpha, turned = data.images[0].annotations
    assert (polygon.segmentation, polygon.id) == ([[1.5, 2, 10, 2, 10, 12.25]], 5)
    assert (box.category, box.box, box.segmentation) == (0, (5.5, 6, 15, 26), None)
    assert rle_area(ring.segmentation) == 100 - 36
    expected = np.zeros((40, 60), bool)
    expected[3:6, 7:10] = True
    expected[4, 8] = False
    np.testing.assert_array_equal(decode_rle(bitmap.segmentation), expected)
    assert alpha.segmentation == bitmap.segmentation
    assert turned.box == pytest.approx((25, 5, 35, 25))
    assert "1 rotated box became a polygon" in caplog.text
    assert "1 shape that encloses no area is left out, such as a point" in caplog.text


def test_rectangles_may_be_masks_and_ignored_regions_are_crowds(read):
    rectangle = shape("rectangle", exterior=[[5, 6], [15, 26]])
    (annotation,) = read(rectangle, rectangles="masks").images[0].annotations
    assert rle_area(segmentation_to_rle(annotation.segmentation, 40, 60)) == 200
    found = read({**rectangle, "classTitle": "__ignore__"}).images[0].annotations
    assert [(each.category, each.crowd) for each in found] == [(0, True), (1, True)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (shape("polygon", exterior=[[1, 1], [2, 2]]), "object 0, `exterior`: expected at least 3 points, found 2"),
        (shape("polygon", exterior=[[1, 1], [2, 2], 3]), r"expected a list of \[x, y\]"),
        (shape("polygon", exterior=[[1, 1], [2, 2], ["x", 1]]), "expected numbers"),
        (
            shape("polygon", exterior=[[1, 1], [9, 1], [9, 9]], interior=[[[1e9, 1], [2, 2], [3, 3]]]),
            "is far outside",
        ),
        (shape("polygon"), "`points` is None"),
        (shape("rectangle", exterior=[[5, 6], [5, 9]]), "has no area"),
        (shape("bitmap"), "`bitmap` is None"),
        (shape("bitmap", bitmap={"data": "x", "origin": [1, 2]}), "`data` is not a PNG in base64"),
        (shape("bitmap", bitmap={"data": RING, "origin": [1]}), "`origin` is"),
        (shape("blob"), "has the `geometryType` 'blob', expected one of polygon, rectangle, oriented_bbox, bitmap"),
        (shape("polygon", None, exterior=[[1, 1], [9, 1], [9, 9]]), "has no `classTitle`"),
        (shape("polygon", "cow", exterior=[[1, 1], [9, 1], [9, 9]]), "class 'cow', expected one of dog, cat"),
    ],
)
def test_a_broken_object_is_named_or_collected(read, broken, message):
    with pytest.raises(InputError, match=message):
        read(broken)
    faults = []
    assert len(read(broken, TRIANGLE, faults=faults).images[0].annotations) == 1
    assert len(faults) == 1
    assert "\n" not in faults[0]


def test_broken_files_are_named(read, tmp_path):
    with pytest.raises(InputError, match=r"meta.json: not of a Supervisely project"):
        read(meta={"classes": [1]})
    with pytest.raises(InputError, match=r"a.png.json: `size` is .* is 60 x 40"):
        read(size=(40, 61))
    (tmp_path / "ds/ann/a.png.json").write_text("[]")
    with pytest.raises(InputError, match="not an annotation of Supervisely"):
        read_supervisely(tmp_path)
    (tmp_path / "ds/ann/a.png.json").unlink()
    with pytest.raises(InputError, match=r"no files \*/ann/\*.json"):
        read_supervisely(tmp_path)


def test_one_data_set_of_a_project_is_read(read, tmp_path):
    read(TRIANGLE)
    shutil.copytree(tmp_path / "ds", tmp_path / "other" / "inner")
    for name, count in ((None, 2), ("ds", 1), ("other", 1)):
        assert len(read_supervisely(tmp_path, dataset=name).images) == count
    with pytest.raises(InputError, match="no data set 'ds2', it has ds, other"):
        read_supervisely(tmp_path, dataset="ds2")
