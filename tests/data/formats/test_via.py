"""VIA 1.x and 2.x files, every shape, and errors for broken files."""

import csv
import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.via import read_via

TRIANGLE = {"name": "polygon", "all_points_x": [10, 40.5, 20], "all_points_y": [5, 15, 35.25]}


@pytest.fixture
def write(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))

    def write(regions, *, project=False, filename="a.png"):
        entries = {f"{filename}1234": {"filename": filename, "size": 1234, "regions": regions, "file_attributes": {}}}
        file = tmp_path / "via.json"
        file.write_text(json.dumps({"_via_img_metadata": entries, "_via_settings": {}} if project else entries))
        return file

    return write


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


@pytest.mark.parametrize(
    ("regions", "project"),
    [({"0": region(TRIANGLE)}, False), ([region(TRIANGLE)], False), ([region(TRIANGLE)], True)],
    ids=["1.x", "2.x", "2.x project"],
)
def test_both_versions_keep_sub_pixel_polygons(write, tmp_path, regions, project):
    (record,) = read_via(write(regions, project=project), tmp_path, classes=["thing"]).images
    assert (record.width, record.height, record.image_id) == (60, 40, "a.png")
    assert record.annotations[0].segmentation == [[10, 5, 40.5, 15, 20, 35.25]]
    assert record.annotations[0].box == (10, 5, 40.5, 35.25)


def test_rectangles_circles_and_ellipses_become_polygons(write, tmp_path):
    shapes = [
        {"name": "rect", "x": 5, "y": 6, "width": 10, "height": 20},
        {"name": "circle", "cx": 30, "cy": 20, "r": 10},
        {"name": "ellipse", "cx": 30, "cy": 20, "rx": 12, "ry": 6, "theta": np.pi / 2},
    ]
    (record,) = read_via(write([region(shape) for shape in shapes]), tmp_path, classes=["thing"]).images
    boxes = [annotation.box for annotation in record.annotations]
    np.testing.assert_allclose(boxes, [[5, 6, 15, 26], [20, 10, 40, 30], [24, 8, 36, 32]], atol=1e-9)
    areas = [polygon_area(annotation.segmentation[0]) for annotation in record.annotations]
    np.testing.assert_allclose(areas, [200, np.pi * 100, np.pi * 72], rtol=2e-3)


def test_a_polygon_beyond_the_edge_keeps_its_points_and_its_box_ends_at_the_edge(write, tmp_path):
    shape = {"name": "polygon", "all_points_x": [-3, 70, 20], "all_points_y": [5, 15, 45]}
    (record,) = read_via(write([region(shape)]), tmp_path, classes=["thing"]).images
    assert record.annotations[0].segmentation == [[-3, 5, 70, 15, 20, 45]]
    assert record.annotations[0].box == (0, 5, 60, 40)


def test_a_spike_without_area_does_not_widen_the_box(write, tmp_path):
    x, y = [5, 25, 25, 25, 25, 5], [5, 5, 35, 15, 15, 15]  # down from (25, 5) to (25, 35) and back up to (25, 15)
    shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
    (record,) = read_via(write([region(shape)]), tmp_path, classes=["a"]).images
    assert record.annotations[0].box == (5, 5, 25, 16)


def polygon_area(points):
    x, y = np.array(points).reshape(-1, 2).T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_classes_come_from_an_attribute(write, tmp_path):
    file = write([region(TRIANGLE, kind="dog"), region(TRIANGLE, kind="cat")])
    (record,) = read_via(file, tmp_path, classes=["cat", "dog"], attribute="kind").images
    assert [annotation.category for annotation in record.annotations] == [1, 0]
    with pytest.raises(InputError, match=r"region 0: attribute 'kind': class 'dog', expected one of cat, cow"):
        read_via(file, tmp_path, classes=["cat", "cow"], attribute="kind")
    with pytest.raises(InputError, match="must name the region attribute"):
        read_via(file, tmp_path, classes=["cat", "dog"])
    assert read_via(file, tmp_path, attribute="kind").classes == ["cat", "dog"]
    assert read_via(file, tmp_path).classes == ["object"]


def test_an_image_without_regions_is_kept(write, tmp_path):
    (record,) = read_via(write([]), tmp_path, classes=["thing"]).images
    assert record.annotations == []


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "spline", "cx": 1, "cy": 2}, "shape 'spline' encloses no area"),
        ({"name": "rect", "x": 5, "y": 6, "width": 10}, "the rect is broken, or has no 'height'"),
        ({**TRIANGLE, "all_points_y": [5, 15]}, "the polygon is broken"),
        ({**TRIANGLE, "all_points_x": [1, 2], "all_points_y": [1, 2]}, "needs 3 points, this one has 2"),
        ({}, "shape None encloses no area"),
    ],
)
def test_a_broken_region_is_named(write, tmp_path, shape, message):
    with pytest.raises(InputError, match=message) as caught:
        read_via(write([region(TRIANGLE), region(shape)]), tmp_path, classes=["thing"])
    assert "via.json: record 'a.png1234', region 1:" in str(caught.value)


def test_broken_files_are_named(write, tmp_path):
    with pytest.raises(InputError, match=r"cannot read image .*missing\.png"):
        read_via(write([], filename="missing.png"), tmp_path, classes=["thing"])
    file = tmp_path / "via.json"
    for text, message in (("{", "not a JSON file"), ("[1]", "not a VIA annotation file"), ('{"a": 1}', "not a VIA")):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_via(file, tmp_path, classes=["thing"])


def test_names_are_ticked_or_typed(write, tmp_path):
    file = write([region(TRIANGLE, kind={"dog": True, "cat": False}), region(TRIANGLE, kind=" cat\n")])
    data = read_via(file, tmp_path, attribute="kind")
    assert data.classes == ["cat", "dog"]
    assert [annotation.category for annotation in data.images[0].annotations] == [1, 0]
    file = write([region(TRIANGLE, kind={"dog": True}), region(TRIANGLE, kind={"cat": True, "dog": True})])
    with pytest.raises(InputError, match=r"region 1: attribute 'kind': class 'cat, dog', expected one of cat, dog"):
        read_via(file, tmp_path, attribute="kind")
    with pytest.raises(InputError, match=r"region 1: attribute 'kind': class '', expected one of dog"):
        read_via(write([region(TRIANGLE, kind="dog"), region(TRIANGLE, kind="")]), tmp_path, attribute="kind")


def test_unused_attributes_are_logged(write, tmp_path, caplog):
    read_via(write([region(TRIANGLE, kind="dog"), region(TRIANGLE, kind="dog")]), tmp_path)
    assert not caplog.text
    file = write([region(TRIANGLE, kind="dog"), region(TRIANGLE, kind="cat")])
    read_via(file, tmp_path, classes=["animal"])
    assert not caplog.text
    read_via(file, tmp_path)
    assert (
        "all objects become one class, but their property 'kind' is dog (1), cat (1); add @attribute:kind"
        in caplog.text
    )


def test_points_are_left_out_with_a_count(write, tmp_path, caplog):
    file = write([region({"name": "point", "cx": 1, "cy": 2}), region(TRIANGLE)])
    assert len(read_via(file, tmp_path).images[0].annotations) == 1
    assert "1 shape that encloses no area is left out, such as a point" in caplog.text


def test_drawn_rectangles_are_counted_and_may_be_boxes(write, tmp_path, caplog):
    file = write([region(TRIANGLE), region({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4})])
    (record,) = read_via(file, tmp_path).images
    assert all(annotation.segmentation for annotation in record.annotations)
    assert "1 of 2 objects is a drawn rectangle, trained as a mask; add @rectangles:boxes" in caplog.text
    caplog.clear()
    (record,) = read_via(file, tmp_path, rectangles="boxes").images
    assert [bool(annotation.segmentation) for annotation in record.annotations] == [True, False]
    assert record.annotations[1].box == (1, 2, 4, 6)
    assert not caplog.text
    with pytest.raises(InputError, match="`rectangles` is 'masked', expected 'masks' or 'boxes'"):
        read_via(file, tmp_path, rectangles="masked")


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ("x", "`regions` is 'x', expected a list"),
        (["x"], "region 0: expected `shape_attributes`"),
        ([{"shape_attributes": [1]}], "region 0: expected `shape_attributes`"),
        ([region({"name": "circle", "cx": None, "cy": 1, "r": 2})], "region 0: the circle is broken"),
        ([region({"name": "circle", "cx": 10**400, "cy": 1, "r": 2})], "region 0: the circle is broken"),
        ([region({**TRIANGLE, "all_points_x": [1, float("nan"), 2]})], "region 0: expected finite numbers"),
    ],
)
def test_broken_regions_are_named(write, tmp_path, regions, message):
    with pytest.raises(InputError, match=f"record 'a.png1234'.*{message}"):
        read_via(write(regions), tmp_path)


def test_a_record_leads_to_one_image_in_the_folder(write, tmp_path):
    with pytest.raises(InputError, match=r"file name '\.\./none\.png' leads out of .*, which has no none\.png"):
        read_via(write([], filename="../none.png"), tmp_path)
    file = write([])
    entry = json.loads(file.read_text())["a.png1234"]
    file.write_text(json.dumps({"a.png1234": entry, "a.png-1": {**entry, "size": -1}}))
    with pytest.raises(InputError, match=r"record 'a\.png-1': a\.png has another record: keep"):
        read_via(file, tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_every_encoding_of_unicode_is_read(write, tmp_path, encoding):
    file = write([region(TRIANGLE, kind="h\u00e9")])
    file.write_bytes(file.read_text().encode(encoding))
    assert read_via(file, tmp_path, attribute="kind").classes == ["h\u00e9"]


def test_the_csv_is_read_as_the_json(write, tmp_path):
    regions = [
        region(TRIANGLE, kind="leaf"),
        region({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}, kind="bug"),
    ]
    file = tmp_path / "via.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["filename", "file_size", "region_count", "region_shape_attributes", "region_attributes"])
        for each in regions:
            table.writerow(["a.png", 1, 2, json.dumps(each["shape_attributes"]), json.dumps(each["region_attributes"])])
    found, expected = (read_via(each, tmp_path, attribute="kind") for each in (file, write(regions)))
    assert (found.classes, found.images) == (expected.classes, expected.images)
    file.write_text("filename,region_shape_attributes,region_attributes\na.png,{},{}\n")
    (record,) = read_via(file, tmp_path).images
    assert record.annotations == []
    file.write_text("filename,region_shape_attributes,region_attributes\na.png,{,{}\n")
    with pytest.raises(InputError, match=r"via\.csv, line 2: not JSON"):
        read_via(file, tmp_path)
    file.write_text("filename,region_shape_attributes,region_attributes\na.png,{}\n")
    with pytest.raises(InputError, match=r"via\.csv, line 2: no 'region_attributes'"):
        read_via(file, tmp_path)
    file.write_text(f"filename,region_shape_attributes,region_attributes\na.png,{'[' * 100_000},{{}}\n")
    with pytest.raises(InputError, match=r"via\.csv, line 2: not JSON"):
        read_via(file, tmp_path)
    file.write_text("filename,x\na.png,1\n")
    with pytest.raises(InputError, match="not a VIA table"):
        read_via(file, tmp_path)
