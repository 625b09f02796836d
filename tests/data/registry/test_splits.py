"""Data to train on and to validate on is found in files and folders that hold both."""

import json

import pytest

from maskrcnn_ext.data.registry.splits import detect_splits

COCO = json.dumps({"images": [], "categories": []})
LABELME = json.dumps({"imagePath": "a.png", "shapes": []})
YOLO = "{names: [cat], train: train, val: valid, test: test}"
VOC = {"Annotations/a.xml": "", "JPEGImages/a.jpg": ""}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"data.yaml": YOLO}, ("yolo:{0}/data.yaml@train", "yolo:{0}/data.yaml@val")),
        ({"data.yaml": "{names: [cat], train: a}"}, ("yolo:{0}/data.yaml@train", None)),
        (
            {f"annotations/instances_{split}2017.json": COCO for split in ("train", "val", "test")},
            (
                "coco:{0}/annotations/instances_train2017.json@{0}/annotations",
                "coco:{0}/annotations/instances_val2017.json@{0}/annotations",
            ),
        ),
        (
            {f"{split}/_annotations.coco.json": COCO for split in ("train", "valid", "test")},
            ("coco:{0}/train/_annotations.coco.json@{0}/train", "coco:{0}/valid/_annotations.coco.json@{0}/valid"),
        ),
        (
            {"export/train/a.json": LABELME, "export/dev/b.json": LABELME},
            ("labelme:{0}/export/train", "labelme:{0}/export/dev"),
        ),
        ({"train/a.json": LABELME, "test/b.json": LABELME}, ("labelme:{0}/train", None)),
        (
            {f"{kind}/{split}/a.png": "" for kind in ("images", "masks") for split in ("training", "validation")},
            (
                "label_image:{0}/masks/training@{0}/images/training",
                "label_image:{0}/masks/validation@{0}/images/validation",
            ),
        ),
        (
            {**VOC, "ImageSets/Main/train.txt": "a", "ImageSets/Main/val.txt": "a", "ImageSets/Main/cat_train.txt": ""},
            (
                "voc:{0}/Annotations@{0}/JPEGImages@{0}/ImageSets/Main/train.txt",
                "voc:{0}/Annotations@{0}/JPEGImages@{0}/ImageSets/Main/val.txt",
            ),
        ),
        (
            {**VOC, "SegmentationObject/a.png": "", "ImageSets/Segmentation/train.txt": "a"},
            (
                "voc:{0}/Annotations@{0}/JPEGImages@{0}/ImageSets/Segmentation/train.txt@objects:{0}/SegmentationObject",
                None,
            ),
        ),
        (
            {"a.xml": '<annotations><image subset="Train"/><image subset="Val"/></annotations>'},
            ("cvat:{0}/a.xml@subset:Train", "cvat:{0}/a.xml@subset:Val"),
        ),
        (
            {"meta.json": '{"classes": []}', "train/ann/a.png.json": "{}", "val/ann/b.png.json": "{}"},
            ("supervisely:{0}@train", "supervisely:{0}@val"),
        ),
        (
            {f"{split}/{kind}/{n}.png": "" for split in ("train", "val") for kind in ("images", "masks") for n in "ab"},
            ("label_image:{0}/train/masks@{0}/train/images", "label_image:{0}/val/masks@{0}/val/images"),
        ),
        (
            {f"{split}_{kind}/a.png": "" for split in ("train", "val") for kind in ("images", "masks")},
            ("label_image:{0}/train_masks@{0}/train_images", "label_image:{0}/val_masks@{0}/val_images"),
        ),
        (
            {
                f"{kind}/{split}/x/a_{end}": ""
                for split in ("train", "val", "test")
                for kind, end in (("leftImg8bit", "leftImg8bit.png"), ("gtFine", "gtFine_instanceIds.png"))
            },
            (
                "cityscapes:{0}/gtFine/train@{0}/leftImg8bit/train",
                "cityscapes:{0}/gtFine/val@{0}/leftImg8bit/val",
            ),
        ),
        (
            {
                "classes.txt": "cat",
                **{f"{split}/{name}": "" for split in ("train", "val") for name in ("images/a.png", "labels/a.txt")},
            },
            ("yolo:{0}/classes.txt@train", "yolo:{0}/classes.txt@val"),
        ),
        (
            {
                "classes.txt": "cat",
                **{
                    f"{name}": ""
                    for split in ("train", "valid")
                    for name in (f"images/{split}/a.png", f"labels/{split}/a.txt")
                },
            },
            ("yolo:{0}/classes.txt@train", "yolo:{0}/classes.txt@valid"),
        ),
        # Files at the top come before further ones below.
        (
            {"instances_train.json": COCO, "annotations/a_train.json": COCO, "train/a.json": LABELME},
            ("coco:{0}/instances_train.json@{0}", None),
        ),
        ({"a_train.json": COCO, "b_train.json": COCO, "val.json": COCO}, None),
        ({"a.json": COCO}, None),
        ({"data.yaml": "[", "a.png": ""}, None),
    ],
)
def test_splits_are_found(tmp_path, files, expected):
    for name, content in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    found = detect_splits(tmp_path)
    assert found == (expected and tuple(name and name.format(tmp_path) for name in expected))
