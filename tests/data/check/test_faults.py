"""The doctor of data sets: planted faults are found by their ids and nothing else is; repaired copies have no errors."""

import copy
import json

import pytest

from maskrcnn_ext.data.check import KINDS, SEVERITIES, find_faults, read_images, view_dataset
from maskrcnn_ext.data.check.repair import repair
from maskrcnn_ext.data.check.source import find
from maskrcnn_ext.data.formats.coco import read_coco
from tests.helpers.planted import PLANTED, SIZE, STAY, check, serious, set_of_polygons, set_of_rles


@pytest.fixture
def rles(shapes, tmp_path):
    return set_of_rles(shapes, tmp_path)


@pytest.fixture
def polygons(shapes, tmp_path):
    return set_of_polygons(shapes, tmp_path)


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
        (lambda rle: rle.update(size=[SIZE, SIZE + 1]), "an RLE of size [96, 97], but its image is 96 x 96"),
        (lambda rle: rle.update(size=[2 * SIZE, SIZE // 2]), "an RLE of size [192, 48], but its image is 96 x 96"),
        (lambda rle: rle.update(counts=[5, 5]), "add up to 10"),
        (lambda rle: rle.update(counts=[-5, SIZE * SIZE + 5]), "not all whole numbers of at least 0"),
        (lambda rle: rle.update(counts="\N{SNOWMAN}"), "broken: no RLE has"),
        (lambda rle: rle.update(counts=7), "of type int, expected a list or a text"),
        (lambda rle: rle.pop("size"), "expected [height, width]"),
    ],
)
def test_a_broken_rle_is_found_and_dropped(rles, change, message):
    data, folder = rles
    change(data["annotations"][4]["segmentation"])
    view = view_dataset(data, folder, "set")
    faults = find_faults(view)
    assert serious(faults) == {("segmentation-broken", data["annotations"][4]["image_id"], 5)}
    assert message in next(f.message for f in faults if f.kind == "segmentation-broken")
    mended, _ = repair(data, folder, faults, {})
    assert serious(find_faults(view_dataset(mended, folder, "set"))) == set()
    assert len(mended["annotations"]) == len(data["annotations"]) - 1


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
    (fault,) = check({"images": [], "annotations": [], "categories": []}, tmp_path)
    assert fault.kind == "images-none"


def test_an_object_that_is_there_thirty_times_is_told_once_each(polygons):
    data, folder = polygons
    again = [{**data["annotations"][4], "id": 900 + number} for number in range(29)]
    data["annotations"] += again
    image = data["annotations"][4]["image_id"]
    faults = [fault for fault in check(data, folder) if fault.kind == "instance-duplicate"]
    assert [(f.image_id, f.annotation_id) for f in faults] == [(image, entry["id"]) for entry in again]
    assert {fault.message for fault in faults} == {"the same as annotation 5"}


def test_every_kind_has_a_severity_a_title_and_a_mend():
    for kind in KINDS.values():
        assert kind.severity in SEVERITIES
        assert kind.title
        assert kind.fix


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "x\0y.jpg", "..\\\\up.jpg", "C:\\\\a.jpg", "a/../../b.jpg", "."])
def test_names_that_no_file_has_are_told_and_never_opened(polygons, name):
    data, folder = polygons
    data["images"][2]["file_name"] = name
    assert serious(check(data, folder)) == {("image-broken", 3, None)}


def test_names_and_sizes_are_read_as_the_reader_of_coco_reads_them(polygons):
    data, folder = polygons
    (folder / "sub").mkdir()
    (folder / "000003.jpg").rename(folder / "sub/3.jpg")
    data["images"][2].update(file_name="sub\\3.jpg", height=float(SIZE))
    assert serious(check(data, folder)) == set()


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ["balloon", "coco_open", "fruits_nuts", "kudzu_bugs", "nuclei_dsb2018"])
def test_real_sets_have_no_errors_before_or_after_a_repair(real_data, folder):
    found = find(str(real_data / folder / "instances_val.json"))
    view = view_dataset(*found)
    faults = find_faults(view)
    assert [fault for fault in faults if fault.severity == "error"] == []
    mended, _ = repair(found.data, found.folder, faults, {})
    assert len(mended["annotations"]) == len(found.data["annotations"])
    left = {
        fault.kind for fault in find_faults(view_dataset(mended, found.folder, "set")) if fault.severity == "warning"
    }
    assert not left & {"polygon-crossing", "polygon-beyond-image", "box-beyond-image"}
    untouched = sum(a == b for a, b in zip(found.data["annotations"], mended["annotations"], strict=True))
    assert untouched >= 0.98 * len(mended["annotations"])
