"""Checks of annotations: empty masks, datasets without masks, objects annotated many times, hand-drawn boxes."""

import pytest

from maskrcnn_ext.data.check import find_faults, view_dataset
from maskrcnn_ext.data.check.checks import box_iou, describe_box
from tests.helpers.planted import SIZE, check, serious


def test_an_empty_rle_is_found(rles):
    data, folder = rles
    data["annotations"][4]["segmentation"]["counts"] = [SIZE * SIZE]
    assert serious(find_faults(view_dataset(data, folder, "set"))) == {
        ("mask-empty", data["annotations"][4]["image_id"], 5)
    }


def test_boxes_without_masks_are_one_info(rles):
    data, folder = rles
    for annotation in data["annotations"]:
        del annotation["segmentation"]
    faults = find_faults(view_dataset(data, folder, "set"))
    assert serious(faults) == set()
    assert [f.kind for f in faults if f.severity == "info"] == ["segmentation-none"]


def test_an_object_that_is_annotated_thirty_times_is_reported_once_each(polygons):
    data, folder = polygons
    again = [{**data["annotations"][4], "id": 900 + number} for number in range(29)]
    data["annotations"] += again
    image = data["annotations"][4]["image_id"]
    faults = [fault for fault in check(data, folder) if fault.kind == "instance-duplicate"]
    assert [(f.image_id, f.annotation_id) for f in faults] == [(image, entry["id"]) for entry in again]
    assert {fault.message for fault in faults} == {"the same as annotation 5"}


def test_box_iou_and_the_words_for_a_box():
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == box_iou((0, 0, 0, 9), (0, 0, 5, 5)) == 0
    assert describe_box((0.04, 1.0, 2.26, 3.0)) == "x 0 to 2.3, y 1 to 3"


def test_a_set_of_crowds_is_an_error_with_counts(polygons):
    data, folder = polygons
    for annotation in data["annotations"]:
        annotation["iscrowd"] = 1
    faults = find_faults(view_dataset(data, folder, "set"))
    messages = {(fault.kind, fault.message) for fault in faults}
    assert ("crowds-only", f"all: {len(data['annotations'])} objects") in messages
    assert ("images-empty", "8 of 8 images") in messages
    count = sum(annotation["category_id"] == 1 for annotation in data["annotations"])
    assert ("class-empty", f"class 'disc': its objects are crowds: {count}") in messages


def test_masks_that_are_rectangles_are_counted(polygons):
    data, folder = polygons
    data["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    (fault,) = (f for f in find_faults(view_dataset(data, folder, "set")) if f.kind == "masks-rectangles")
    count = len(data["annotations"])
    assert (fault.severity, fault.message) == ("info", f"{count - 1} of {count} masks")


def test_a_polygon_that_crosses_itself_is_reported_with_the_place(polygons):
    data, folder = polygons
    data["annotations"][0]["segmentation"] = [[10, 10, 50, 50, 50, 10, 10, 50]]
    data["annotations"][1]["segmentation"] = [[10, 10, 30, 30, 50, 10, 50, 50, 30, 30, 10, 50]]  # touches itself
    data["annotations"][2]["segmentation"] = [[10, 10, 10, 10, 50, 50, 10, 10]]  # a line
    messages = [fault.message for fault in check(data, folder) if fault.kind == "polygon-crossing"]
    assert messages[:2] == ["polygon 0: at x 30.0, y 30.0"] * 2
    assert all(message.startswith("polygon 0: ") for message in messages)
