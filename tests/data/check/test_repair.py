"""A repair changes only faulty records, and lists each change."""

import copy
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.check import KINDS, find_faults, read_images, view_dataset
from maskrcnn_ext.data.check.changes import describe_losses
from maskrcnn_ext.data.check.repair import repair
from tests.helpers import planted


def repaired(data, folder):
    fixed, log = repair(data, folder, find_faults(view_dataset(data, folder, "set")), {})
    return fixed, list(map(str, log))


def test_a_dataset_without_faults_stays_equal(polygons):
    data, folder = polygons
    before = json.dumps(data)
    fixed, log = repaired(data, folder)
    assert (json.dumps(fixed), log) == (before, [])


def test_each_change_is_listed_and_other_records_stay(polygons):
    data, folder = polygons
    original = copy.deepcopy(data["annotations"])
    data["annotations"][0]["bbox"] = [0, 0, 0, 0]
    data["annotations"][1]["area"] = 1e6
    data["annotations"][2]["category_id"] = 99
    data["annotations"].append({**data["annotations"][3], "id": data["annotations"][4]["id"]})
    fixed, log = repaired(data, folder)
    kept = [entry for entry in original if entry["id"] != original[2]["id"]]
    assert fixed["annotations"] == kept
    assert len(log) == 4
    assert "its box is" in "".join(log)
    assert "its category does not exist" in "".join(log)
    assert "the same as annotation" in "".join(log)


def test_ids_that_are_taken_become_new_ones(polygons):
    data, folder = polygons
    data["annotations"][-1]["id"] = data["annotations"][0]["id"]
    fixed, log = repaired(data, folder)
    ids = [entry["id"] for entry in fixed["annotations"]]
    assert len(set(ids)) == len(ids)
    assert ids[0] == data["annotations"][0]["id"]
    assert log[0].endswith(f"has the id {ids[-1]} now")


def test_objects_without_an_id_get_one(polygons):
    data, folder = polygons
    expected = [{**entry, "id": number} for number, entry in enumerate(data["annotations"], start=1)]
    for entry in data["annotations"]:
        del entry["id"]
    assert repaired(data, folder)[0]["annotations"] == expected
    assert KINDS["annotation-broken"].fix.endswith("with a new id")


def test_ignored_objects_become_crowds_with_an_rle(polygons):
    data, folder = polygons
    data["annotations"][0]["ignore"] = 1
    fixed, _ = repaired(data, folder)
    entry = fixed["annotations"][0]
    assert (entry["iscrowd"], entry["ignore"]) == (1, 0)
    assert isinstance(entry["segmentation"]["counts"], str)


def test_objects_without_outlines_stay_as_training_reads_them(polygons, tmp_path):
    """SafeMapper trains an object without a mask, so a repair keeps it with its box."""
    data, folder = polygons
    for annotation in data["annotations"][3:]:
        del annotation["segmentation"]
    fixed, log = repaired(data, folder)
    assert (fixed["annotations"], log) == (data["annotations"], [])


@pytest.mark.parametrize("to", [str, float])
def test_ids_of_another_type_keep_their_objects(polygons, tmp_path, to):
    data, folder = polygons
    for annotation in data["annotations"]:
        annotation.update(image_id=to(annotation["image_id"]), category_id=to(annotation["category_id"]))
    fixed, log = repaired(data, folder)
    assert len(log) == (2 * len(data["annotations"]) if to is str else 0)
    file = tmp_path / "fixed.json"
    file.write_text(json.dumps(fixed))
    assert COCO(file).getAnnIds(imgIds=[1]) == [a["id"] for a in data["annotations"] if int(a["image_id"]) == 1]


def test_records_with_ids_of_floats_stay(polygons):
    data, folder = polygons
    for key in ("images", "annotations", "categories"):
        for record in data[key]:
            record["id"] = float(record["id"])
    fixed, log = repaired(data, folder)
    assert (fixed, log) == (data, [])


def test_a_list_of_rles_becomes_one(polygons):
    data, folder = polygons
    planted.list_of_rles(data, folder)
    masks = mask_util.decode(data["annotations"][4]["segmentation"])
    fixed, log = repaired(data, folder)
    assert len(log) == 1
    np.testing.assert_array_equal(mask_util.decode(fixed["annotations"][4]["segmentation"]), masks.max(axis=2))


def test_a_size_is_that_of_the_file_even_if_no_image_is_decoded(polygons):
    data, folder = polygons
    for key in ("height", "width"):
        del data["images"][0][key]
    fixed, _ = repaired(data, folder)
    assert (fixed["images"][0]["height"], fixed["images"][0]["width"]) == (planted.SIZE, planted.SIZE)
    assert len(fixed["annotations"]) == len(data["annotations"])


def test_losses_are_counted_by_reason(polygons):
    data, folder = polygons
    (folder / "000003.jpg").unlink()
    data["annotations"][0]["category_id"] = 99
    faults = planted.check(data, folder)
    _, log = repair(data, folder, faults, read_images(view_dataset(data, folder, "set")))
    lost = plural(len(planted.of_image(data, 3)), "object")
    assert describe_losses(log) == [
        f"1 image, {lost}: left out with its objects (image-missing), such as image 3 (000003.jpg)",
        "1 object: left out, its category does not exist, such as image 1, annotation 1",
    ]


def test_a_rotated_box_is_reported_and_becomes_a_polygon(polygons):
    data, folder = polygons
    data["annotations"] = data["annotations"][:1]
    del data["annotations"][0]["segmentation"]
    data["annotations"][0].update(bbox=[30, 35, 40, 10], area=400, attributes={"rotation": 90.0})
    (fault,) = (f for f in find_faults(view_dataset(data, folder, "set")) if f.kind == "box-rotated")
    assert fault.message == "read as a polygon; the box around it is x 45 to 55, y 20 to 60"
    fixed, log = repaired(data, folder)
    assert np.round(fixed["annotations"][0]["bbox"]).tolist() == [45, 20, 10, 40]
    assert log == ["image 1, annotation 1: its rotated box became a polygon"]
    assert repaired(fixed, folder) == (fixed, [])


def test_a_rotated_box_outside_of_its_image_is_left_out(polygons):
    """Its rotation must not make a polygon of the box again that was cut at the edge of the image."""
    data, folder = polygons
    first, second = data["annotations"][:2]
    data["annotations"] = [first, second]
    del first["segmentation"]
    first.update(bbox=[1000, 35, 40, 10], attributes={"rotation": 30.0, "occluded": True})
    original = copy.deepcopy(data)
    assert "box-outside" in {fault.kind for fault in find_faults(view_dataset(data, folder, "set"))}
    fixed, log = repaired(data, folder)
    assert fixed["annotations"] == [second]
    assert log[-1].endswith("no part of its box is inside the image, and it has no mask there")
    first["bbox"] = [30, 35, 40, 10]
    original["annotations"][0]["bbox"] = [30, 35, 40, 10]
    assert repaired(data, folder)[0]["annotations"][0]["attributes"] == {"occluded": True}
    assert data == original


@pytest.mark.parametrize("masks", ["fractions", "pixels", "none"])
def test_fractions_of_the_image_become_pixels(polygons, masks):
    data, folder = polygons
    original = copy.deepcopy(data)
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    for entry in data["annotations"]:
        sides = sizes[entry["image_id"]]
        entry["bbox"] = (np.array(entry["bbox"]).reshape(2, 2) / sides).ravel().tolist()
        if masks == "fractions":
            polygons_of = [np.array(polygon).reshape(-1, 2) / sides for polygon in entry["segmentation"]]
            entry["segmentation"] = [points.ravel().tolist() for points in polygons_of]
        elif masks == "none":
            del entry["segmentation"]
    faults = find_faults(view_dataset(data, folder, "set"))
    assert [fault.message for fault in faults if fault.kind == "boxes-fractions"] == [
        f"all {len(data['annotations'])} lie in the first pixel of the image"
    ]
    fixed, log = repaired(data, folder)
    assert len(log) >= len(data["annotations"])
    for entry, known in zip(fixed["annotations"], original["annotations"], strict=True):
        assert entry["bbox"] == pytest.approx(known["bbox"], abs=1)
        if masks == "none":
            assert entry["area"] == pytest.approx(known["bbox"][2] * known["bbox"][3])
        else:
            assert entry["segmentation"][0] == pytest.approx(known["segmentation"][0])
    errors = {fault.kind for fault in find_faults(view_dataset(fixed, folder, "set"))}
    assert not {kind for kind in errors if KINDS[kind].severity == "error"}
