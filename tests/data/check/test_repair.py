"""A repair changes what is wrong, leaves the rest as it is, and lists each change."""

import copy
import json

from maskrcnn_ext.data.check import find_faults, view_dataset
from maskrcnn_ext.data.check.repair import repair


def repaired(data, folder):
    return repair(data, folder, find_faults(view_dataset(data, folder, "set")), {})


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
    assert "category 99 does not exist" in "".join(log)
    assert "the same as annotation" in "".join(log)


def test_ids_that_are_taken_become_new_ones(polygons):
    data, folder = polygons
    data["annotations"][-1]["id"] = data["annotations"][0]["id"]
    fixed, log = repaired(data, folder)
    ids = [entry["id"] for entry in fixed["annotations"]]
    assert len(set(ids)) == len(ids)
    assert ids[0] == data["annotations"][0]["id"]
    assert log[0].endswith(f"has the id {ids[-1]} now")


def test_ignored_objects_become_crowds_with_an_rle(polygons):
    data, folder = polygons
    data["annotations"][0]["ignore"] = 1
    fixed, _ = repaired(data, folder)
    entry = fixed["annotations"][0]
    assert (entry["iscrowd"], entry["ignore"]) == (1, 0)
    assert isinstance(entry["segmentation"]["counts"], str)
