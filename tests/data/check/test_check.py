"""Planted faults are found by their ids and nothing else is; repaired copies have no errors."""

import copy
import json

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.check import find_faults, read_images, view_dataset
from maskrcnn_ext.data.check.repair import repair
from maskrcnn_ext.data.check.source import find
from maskrcnn_ext.data.formats.coco import read_coco
from tests.helpers.planted import NOT_REPAIRED, PLANTED, check, serious


def test_a_clean_set_has_no_faults(rles):
    assert serious(check(*rles)) == set()


def test_a_clean_set_of_polygons_has_no_faults(polygons):
    assert serious(check(*polygons)) == set()


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found_alone_and_repaired(polygons, plant, tmp_path):
    data, folder = polygons
    expected = plant(data, folder)
    before = copy.deepcopy(data)
    view = view_dataset(data, folder, "set")
    pixels = read_images(view)
    faults = find_faults(view, pixels)
    assert serious(faults) == expected
    assert all(fault.fix for fault in faults)

    repaired, log = repair(data, folder, faults, pixels)
    assert json.dumps(data) == json.dumps(before), "the input is left as it is"
    left = check(repaired, folder)
    assert {kind for kind, *_ in serious(left)} <= NOT_REPAIRED, log
    assert bool(log) == any(kind not in NOT_REPAIRED for kind, *_ in expected)
    file = tmp_path / "repaired.json"
    file.write_text(json.dumps(repaired))
    read = read_coco(file, folder)  # strict
    assert sum(len(record.annotations) for record in read.images) == len(repaired["annotations"])


def test_garbage_is_reported_and_never_raises(tmp_path):
    garbage = [None, 3, "x", [], {}, {"id": True}, {"id": [1], "image_id": {}, "category_id": []}]
    garbage += [
        {"id": 1, "segmentation": value, "bbox": value, "keypoints": value} for value in (True, "x", [[]], [None])
    ]
    data = {"images": garbage, "annotations": garbage, "categories": garbage}
    faults = check(data, tmp_path)
    assert {"image-broken", "annotation-broken", "category-broken", "box-broken"} <= {f.kind for f in faults}
    repaired, _ = repair(data, tmp_path, faults, {})
    assert (repaired["images"], repaired["annotations"], repaired["categories"]) == ([], [], [])
    (fault,) = check({"images": [], "annotations": [], "categories": []}, tmp_path)
    assert fault.kind == "images-none"


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ["balloon", "coco_open", "fruits_nuts", "kudzu_bugs", "nuclei_dsb2018"])
def test_real_sets_have_no_errors_before_or_after_a_repair(real_data, folder):
    found = find(str(real_data / folder / "instances_val.json"))
    view = view_dataset(*found)
    faults = find_faults(view)
    assert [fault for fault in faults if fault.severity == "error"] == []
    repaired, _ = repair(found.data, found.folder, faults, {})
    assert len(repaired["annotations"]) == len(found.data["annotations"])
    left = {
        fault.kind for fault in find_faults(view_dataset(repaired, found.folder, "set")) if fault.severity == "warning"
    }
    assert not left & {"polygon-crossing", "polygon-beyond-image", "box-beyond-image"}
    untouched = sum(a == b for a, b in zip(found.data["annotations"], repaired["annotations"], strict=True))
    assert untouched >= 0.98 * len(repaired["annotations"])


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_repair_keeps_every_object_that_training_reads(polygons, plant, tmp_path):
    data, folder = polygons
    plant(data, folder)
    before = read_ids(data, folder, tmp_path / "before.json")
    view = view_dataset(data, folder, "set")
    pixels = read_images(view)
    repaired, log = repair(data, folder, find_faults(view, pixels), pixels)
    unreadable = {image.id for image in view.images if pixels.get(image.key) is None or pixels[image.key].problem}
    twice = {900} if plant.__name__ == "object_twice" else set()
    expected = {own for own, image in before.items() if image not in unreadable} - twice
    assert expected <= set(read_ids(repaired, folder, tmp_path / "after.json")), [str(change) for change in log]


def read_ids(data, folder, file):
    """Returns {annotation id: image id} of the objects that are trained on, inside their image; none of a file that is refused."""
    file.write_text(json.dumps(data))
    try:
        records = read_coco(file, folder).images
    except InputError:
        return {}
    return {a.id: record.image_id for record in records for a in record.annotations if a.box[0] < record.width}
