"""Registration with Detectron2: lazy, idempotent, and with errors of one line."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.registry.catalog import load_dataset, register
from maskrcnn_ext.data.registry.keypoints import flip_map, hflip_indices
from tests.conftest import COCO_KEYPOINTS


@pytest.fixture
def name():
    """A name that is free again after the test."""
    yield "test_catalog_set"
    if "test_catalog_set" in DatasetCatalog.list():
        DatasetCatalog.remove("test_catalog_set")
        MetadataCatalog.remove("test_catalog_set")


def test_registering_reads_nothing_and_can_be_repeated(name):
    for _ in range(2):
        register(name, format="via", json="nowhere/a.json", images="nowhere", classes=["thing"])
    assert MetadataCatalog.get(name).thing_classes == ["thing"]
    with pytest.raises(InputError, match="registered already"):
        register(name, format="via", json="nowhere/b.json", images="nowhere", classes=["thing"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "vco", "images": "a"}, "unknown format 'vco', expected one of .*coco.*dsb2018.*via"),
        ({"format": "via", "images": "a", "classes": ["x"]}, "format via needs `json`"),
        ({"format": "dsb2018", "images": "a", "json": "b", "classes": ["x"]}, "format dsb2018 takes no `json`"),
        ({"format": "coco", "images": "a"}, "format coco needs `json`: the annotation file"),
        ({"format": "coco", "images": "a", "json": "b", "attribute": "c"}, "format coco takes no `attribute`"),
        ({"format": "via", "images": "a", "json": "b", "classes": ["x"], "split": list}, "format via takes no `split`"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, message):
    with pytest.raises(InputError, match=message):
        register(name, **arguments)
    assert name not in DatasetCatalog.list()


@pytest.mark.parametrize("name", ["nuclei_train", "nuclei_val", "balloon_train", "balloon_val"])
def test_a_missing_folder_is_named_with_the_layout(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(InputError) as caught:
        get_dataset_dicts(name)
    message = str(caught.value)
    assert "\n" not in message
    assert f"data set {name}: no such file or folder: {tmp_path}/" in message
    assert f"expected below {tmp_path}: " in message


def test_a_missing_coco_is_named_with_the_layout():
    with pytest.raises(InputError, match=r"coco_2017_train: no such file .*expected below .*: coco/\{train,val\}2017"):
        get_dataset_dicts("coco_2017_train")


def test_classes_that_are_not_the_files_are_named(name, shapes):
    register(name, format="coco", json=shapes, images=shapes.parent / "images", classes=["disc", "ring"])
    with pytest.raises(
        InputError, match=r"`classes` are disc, ring, but .*annotations\.json has disc, rectangle, triangle"
    ):
        get_dataset_dicts(name)


def test_two_data_sets_are_joined(shapes, people):
    spec = f"coco:{shapes}@{shapes.parent / 'images'}"
    assert len(get_dataset_dicts([spec, spec], filter_empty=False)) == 16


def test_keypoints_have_their_flip_map(people):
    (record, *_) = get_dataset_dicts(people)
    assert len(record["annotations"][0]["keypoints"]) == 51
    indices = hflip_indices(people)
    assert [COCO_KEYPOINTS[index] for index in indices][:5] == [
        "nose",
        "right_eye",
        "left_eye",
        "right_ear",
        "left_ear",
    ]
    assert [indices[index] for index in indices] == list(range(17)), "mirroring twice changes nothing"


def test_a_flip_map_pairs_only_names_that_have_both_sides():
    names = ["tip", "left_wing", "right_wing", "left_over", "front_left_paw", "front_right_paw"]
    assert flip_map(names) == [("left_wing", "right_wing"), ("front_left_paw", "front_right_paw")]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Left Eye", "Right Eye"),
        ("EYE_LEFT", "EYE_RIGHT"),
        ("l_ear", "r_ear"),
        ("ear-L", "ear-R"),
        ("knee_l1", "knee_r1"),
    ],
)
def test_sides_may_be_single_letters(left, right):
    assert flip_map([right, "nose", left]) == [(left, right)]
    assert flip_map(["tail", "tair", "lip", "rip", "heel", "heer"]) == []


def test_plain_records_of_a_name_or_a_string(shapes, name):
    images = shapes.parent / "images"
    register(name, format="coco", json=shapes, images=images)
    data = load_dataset(name)
    assert data == load_dataset(f"coco:{shapes}@{images}")
    assert (len(data.images), data.category_ids) == (8, [1, 2, 3, 4, 5])


def test_a_missing_coco_is_named_for_plain_records_too():
    with pytest.raises(InputError, match=r"coco_2017_val: no such file .*expected below"):
        load_dataset("coco_2017_val")


def test_a_set_that_has_nothing_to_train_on_is_named(tmp_path, name):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    register(name, format="coco", json=file, images=tmp_path)
    with pytest.raises(InputError, match=f"data set {name}: .*empty"):
        get_dataset_dicts(name, filter_empty=False)
    content["images"] = [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}]
    file.write_text(json.dumps(content))
    assert len(get_dataset_dicts(name, filter_empty=False)) == 1
    with pytest.raises(InputError, match=f"data set {name}: No valid data .*: none of its 1 image has an object"):
        get_dataset_dicts(name)
