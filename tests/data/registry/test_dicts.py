"""Detectron2's dicts of another program become plain records, and errors name the data set."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode

from maskrcnn_ext import InputError
from maskrcnn_ext.data.registry.catalog import load_dataset
from tests.conftest import COCO_KEYPOINTS


@pytest.fixture
def name():
    """A name that is free again after the test."""
    yield "test_catalog_set"
    if "test_catalog_set" in DatasetCatalog.list():
        DatasetCatalog.remove("test_catalog_set")
        MetadataCatalog.remove("test_catalog_set")


def test_plain_records_of_data_that_another_program_has_registered(people, name):
    json_file, images = people.removeprefix("coco:").split("@")
    DatasetCatalog.register(name, lambda: load_coco_json(json_file, images, name))
    MetadataCatalog.get(name).set(keypoint_names=COCO_KEYPOINTS)
    theirs, ours = load_dataset(name), load_dataset(people)
    assert (theirs.classes, theirs.category_ids, theirs.keypoints) == (ours.classes, ours.category_ids, ours.keypoints)
    for one, other in zip(theirs.images, ours.images, strict=True):
        assert (one.file_name, one.image_id, one.extra) == (other.file_name, other.image_id, {})
        assert [(a.category, a.box, a.segmentation, a.keypoints) for a in one.annotations] == [
            (a.category, a.box, a.segmentation, a.keypoints) for a in other.annotations
        ]


RECORD = {"file_name": "a.png", "image_id": 1, "height": 4, "width": 4}
OBJECT = {"bbox": [0, 0, 2, 2], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}


@pytest.mark.parametrize(
    ("dicts", "classes", "message"),
    [
        ([], [], "its metadata has no `thing_classes`"),
        ([{"image_id": 7}], ["a"], "image 7: its dict has no 'height'"),
        ([{**RECORD, "annotations": [{**OBJECT, "bbox_mode": BoxMode.XYWHA_ABS}]}], ["a"], "image 1: `bbox_mode` is"),
        (
            [{**RECORD, "annotations": [{**OBJECT, "category_id": 1}]}],
            ["a"],
            "image 1: an annotation has category 1, but",
        ),
        ([{**RECORD, "annotations": [{"category_id": 0}]}], ["a"], "image 1: its dict has no 'bbox_mode'"),
    ],
)
def test_faults_of_another_programs_dicts_are_named(name, dicts, classes, message):
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(thing_classes=classes)
    with pytest.raises(InputError, match=f"data set {name}: {message}"):
        load_dataset(name)
