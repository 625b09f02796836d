"""Readers on real files, compared with COCO files that were converted from them independently."""

import json

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from maskrcnn_ext import get_dataset_dicts

pytestmark = pytest.mark.realdata


def as_rle(segmentation, height, width):
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    return segmentation


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("domain", "folder"), [("nuclei", "nuclei_dsb2018"), ("balloon", "balloon")])
def test_a_domain_equals_its_coco_file(real_data, domain, folder, split):
    data = json.loads((real_data / folder / f"instances_{split}.json").read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    expected = {name: [] for name in names.values()}
    for annotation in data["annotations"]:
        expected[names[annotation["image_id"]]].append(annotation)

    records = get_dataset_dicts(f"{domain}_{split}", filter_empty=False)
    assert {str(record["file_name"])[len(str(real_data / folder)) + 1 :] for record in records} == set(expected)
    for record in records:
        height, width = record["height"], record["width"]
        theirs = expected[record["file_name"][len(str(real_data / folder)) + 1 :]]
        ours = record["annotations"]
        assert len(ours) == len(theirs), record["file_name"]
        if not ours:
            continue
        boxes = np.array([a["bbox"] for a in ours])
        boxes_theirs = np.array([BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for a in theirs])
        distances = np.abs(boxes[:, None] - boxes_theirs).max(axis=2)
        match = distances.argmin(axis=1)
        assert sorted(match) == list(range(len(theirs)))
        assert distances.min(axis=1).max() <= 1
        masks = [[as_rle(a["segmentation"], height, width) for a in side] for side in (ours, theirs)]
        overlap = mask_util.iou(*masks, [0] * len(theirs))
        assert overlap[np.arange(len(match)), match].min() >= 0.99


def test_sizes_are_those_of_the_files(real_data):
    records = [
        *get_dataset_dicts("balloon_val", filter_empty=False),
        *get_dataset_dicts("nuclei_val", filter_empty=False),
    ]
    for record in records[::7]:
        assert cv2.imread(record["file_name"]).shape[:2] == (record["height"], record["width"])


def test_a_coco_file_needs_no_registration(real_data):
    folder = real_data / "coco_open"
    spec = f"coco:{folder / 'instances_val.json'}@{folder}"
    data = json.loads((folder / "instances_val.json").read_text())
    records = get_dataset_dicts(spec, filter_empty=False)
    assert len(records) == len(data["images"])
    assert sum(len(record["annotations"]) for record in records) == len(data["annotations"])
    assert cv2.imread(records[0]["file_name"]) is not None
    assert MetadataCatalog.get(spec).thing_classes == [
        c["name"] for c in sorted(data["categories"], key=lambda c: c["id"])
    ]
