"""Faults that would stop or invalidate a training later are found when its data sets are read."""

import copy
import json

import pytest
from omegaconf import OmegaConf

from maskrcnn_ext import COCOEvaluator, InputError, get_dataset_dicts
from maskrcnn_ext.config.data_sets import (
    class_faults,
    count_faults,
    fill_counts,
    image_fault,
    map_by_name,
    mask_fault,
    missing_images,
    read_split,
)
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.registry.classes import Classes


@pytest.fixture
def write(tmp_path):
    """Writes a COCO file of one image with one object of each class, under its class's place as id; returns its data set string."""

    def write_coco(name, classes):
        (tmp_path / "a.png").write_bytes(b"")
        annotations = [
            {"id": i, "image_id": 1, "category_id": i, "bbox": [0, 0, i, 4], "area": 4 * i, "iscrowd": 0}
            for i in range(1, len(classes) + 1)
        ]
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
            "categories": [{"id": i + 1, "name": own} for i, own in enumerate(classes)],
            "annotations": annotations,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return f"coco:{tmp_path / name}.json@{tmp_path}"

    return write_coco


def config(train, test, **more):
    dataset = {"_target_": get_dataset_dicts}
    content = {
        "model": {"roi_heads": {"num_classes": 3}},
        "dataloader": {
            "train": {"dataset": {**dataset, "names": train}, "mapper": {"_target_": SafeMapper}},
            "test": {"dataset": {**dataset, "names": test, "filter_empty": False}},
            "evaluator": {"_target_": COCOEvaluator, "dataset_name": test},
        },
        "train": {"match_classes": "strict", **more},
    }
    return OmegaConf.create(content, flags={"allow_objects": True})


def faults(cfg):
    return list(class_faults(cfg, read_split(cfg, "train"), read_split(cfg, "test")))


def test_classes_are_compared_in_order(write):
    train, test = write("train", ["A", "B", "C"]), write("test", ["A", "C", "B"])
    assert faults(config(train, train)) == []
    (fault,) = faults(config(train, test))
    assert fault.startswith(f"class 1 is 'B' in {train} (training) and 'C' in {test} (test)")
    assert faults(config(train, test, match_classes="index")) == []
    assert "class 2 is 'C' in" in faults(config(train, write("short", ["A", "B"]), match_classes="index"))[0]


def test_match_classes_name_maps_records_and_predictions(write):
    train, test = write("train", ["A", "B", "C"]), write("test", ["C", "D", "A"])
    cfg = config(train, test, match_classes="name")
    map_by_name(cfg)
    assert faults(cfg) == []
    split = read_split(cfg, "test")
    assert [(a["bbox"][2], a["category_id"]) for a in split.records[0]["annotations"]] == [(1, 2), (3, 0)]
    assert read_split(cfg, "train").classes == Classes(("A", "B", "C"), (1, 2, 3))


def test_data_sets_of_other_orders_are_joined_by_name_only(write):
    train = [write("train", ["A", "B"]), write("more", ["B", "A"])]
    with pytest.raises(InputError, match=r"class 0 is 'A' in the first and 'B' in the second: set dataset\.classes="):
        get_dataset_dicts(train)
    records = get_dataset_dicts(train, classes=train[0])
    assert [a["category_id"] for record in records for a in record["annotations"]] == [0, 1, 1, 0]
    with pytest.raises(InputError, match="'A' occurs twice"):
        get_dataset_dicts(train, classes=["A", "A"])


def test_counts_are_filled_or_compared(write):
    cfg, classes = config("a", "b"), Classes(("A", "B"), (1, 2))
    assert list(count_faults(cfg, classes, "data")) == [
        "model.roi_heads.num_classes=3, but data has 2 classes (A, B): set model.roi_heads.num_classes=2"
    ]
    assert fill_counts(cfg, classes, []) == []
    assert fill_counts(cfg, classes, ["model.roi_heads.num_classes"]) == [
        "model.roi_heads.num_classes=2, from the training set (A, B)"
    ]
    assert list(count_faults(cfg, classes, "data")) == []


def test_missing_images_are_counted_and_named(tmp_path, write):
    train = write("train", ["A"])
    cfg = config(train, train)
    split = read_split(cfg, "train")
    assert image_fault(cfg, split) is None
    (tmp_path / "a.png").unlink()
    text, is_fatal = image_fault(cfg, split)
    assert f"1 of 1 image file of {train} does not exist: {tmp_path / 'a.png'}" in text
    assert is_fatal, "none of the images exists"
    present = [{"file_name": str(tmp_path / "train.json")}] * 3
    few = split._replace(records=[*split.records, *present])
    assert not image_fault(cfg, few)[1], "SafeMapper skips it"
    assert image_fault(cfg, few._replace(part="test"))[1], "an evaluation needs every image"
    assert missing_images([{"file_name": "s3://bucket/a.png"}]) == []


def test_objects_without_mask_need_another_mapper(write):
    train = write("train", ["A"])
    cfg = config(train, train)
    cfg.model.roi_heads.mask_head = {}
    cfg.dataloader.train.mapper = {
        "_target_": "detectron2.data.DatasetMapper",
        "is_train": True,
        "use_instance_mask": True,
    }
    outlined = {"iscrowd": 0, "category_id": 0, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    crowd, box = {"iscrowd": 1, "category_id": 0}, {"iscrowd": 0, "category_id": 0}
    split = read_split(cfg, "train")
    outlines, mixed = (
        split._replace(records=[{"file_name": "b.png", "annotations": annotations}])
        for annotations in ([outlined, crowd], [outlined, crowd, box])
    )
    assert mask_fault(cfg, outlines) is None
    fault = mask_fault(cfg, mixed)
    assert f"dataloader.train: 1 of 2 objects of {train} has no segmentation, the first in b.png" in fault
    assert "dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper" in fault
    for key, value in {
        "dataloader.train.mapper.use_instance_mask": False,
        "dataloader.train.mapper._target_": "maskrcnn_ext.SafeMapper",
        "model.roi_heads.mask_head": None,
    }.items():
        fitting = copy.deepcopy(cfg)
        OmegaConf.update(fitting, key, value)
        assert mask_fault(fitting, mixed) is None, key
    cfg.dataloader.train.mapper.update(_target_="maskrcnn_ext.SafeMapper", missing_masks="box-only")
    cfg.model.roi_heads.mask_head = {"_target_": "detectron2.modeling.roi_heads.MaskRCNNConvUpsampleHead"}
    assert "set model.roi_heads.mask_head._target_=maskrcnn_ext.FCNMaskHead" in mask_fault(cfg, mixed)
    assert mask_fault(cfg, outlines) is None
    cfg.model.roi_heads.mask_head._target_ = "maskrcnn_ext.DCTMaskHead"
    assert mask_fault(cfg, mixed) is None
    cfg.model.roi_heads.mask_head = {"_target_": "maskrcnn_ext.FCNMaskHead", "mask_loss": "points+box"}
    assert "set dataloader.train.mapper.keep_image=true" in mask_fault(cfg, mixed)
    cfg.dataloader.train.mapper.keep_image = True
    assert "has no `point_coords` and `point_labels`" in mask_fault(cfg, mixed)
    pointed = split._replace(records=[{"file_name": "b.png", "annotations": [{**box, "point_coords": [[1, 1]]}]}])
    assert mask_fault(cfg, pointed) is None


def test_missing_files_of_detectron2s_own_reader_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config("coco_2017_train", "coco_2017_val")
    cfg.dataloader.train.dataset._target_ = "detectron2.data.get_detection_dataset_dicts"
    with pytest.raises(
        InputError, match=r"dataloader\.train\.dataset: data set coco_2017_train: no such file"
    ) as caught:
        read_split(cfg, "train")
    assert "\n" not in str(caught.value)
