"""Label images are found by the names of their folders and files."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import get_dataset_dicts, load_dataset
from maskrcnn_ext.data.registry.detect import detect
from maskrcnn_ext.data.registry.splits import detect_splits


@pytest.mark.parametrize(
    ("masks", "option"),
    [
        ([(0, 255), (0, 255)], "@instances:component"),
        ([(0, 0), (0, 1)], "@instances:component"),
        ([(0, 255), (0, 1, 2)], ""),
        ([(0, 0)], ""),
    ],
)
def test_parts_of_black_and_white_masks_are_objects(tmp_path, masks, option):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, values in enumerate(masks):
        image = Image.new("L", (len(values), 1))
        image.putdata(values)
        for name in ("images", "masks"):
            image.save(tmp_path / name / f"{number}.png")
    assert detect(tmp_path) == f"label_image:{tmp_path}/masks@{tmp_path}/images{option}"


ROWS = {  # label images of two rows
    "classes": [[1, 0, 1, 2, 0, 2], [0, 0, 0, 0, 0, 0]],
    "objects": [[1, 0, 1, 2, 0, 3], [0, 0, 0, 0, 0, 0]],  # one of three in parts
    "specks": [[*[1] * 12, 0, 1, 0, *[2] * 12, 0, 2], [*[1] * 12, 0, 0, 0, *[2] * 12, 0, 0]],
    "border": [[1, 0, 1, 2, 0, 2], [0, 255, 255, 0, 255, 0]],
    "smoothed": [[255, 40, 80, 90, 20, 0, 255, 40, 80, 90, 20], [60, 41, 81, 91, 21, 0, 60, 41, 81, 91, 21]],
    "colours": [[[9, 0, 0], [0, 0, 0], [9, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]],
}


@pytest.mark.parametrize(
    ("kinds", "options"),
    [
        (["classes"], '@categories:{"1":"1","2":"2"}'),
        (["objects"], ""),
        (["specks"], ""),
        (["objects", "classes", "classes"], '@categories:{"1":"1","2":"2","3":"3"}'),
        (["border"], '@categories:{"1":"1","2":"2"}@void:255'),
        (["smoothed"], ""),
        (["colours", "colours"], "@instances:component"),
        (["classes"] * 12 + ["objects"], '@categories:{"1":"1","2":"2","3":"3"}'),
    ],
)
def test_numbers_in_several_parts_are_classes(tmp_path, kinds, options):
    for number, kind in enumerate(kinds):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.array(ROWS[kind], np.uint8)).save(tmp_path / folder / f"{number:02}.png")
    assert detect(tmp_path) == f"label_image:{tmp_path}/masks@{tmp_path}/images{options}"


def test_classes_of_numbers_are_read(tmp_path, caplog):
    for split, kind in (("train", "classes"), ("val", "border")):
        for folder in ("images", "masks"):
            (tmp_path / folder / split).mkdir(parents=True)
            Image.fromarray(np.array(ROWS[kind], np.uint8)).save(tmp_path / folder / split / "a.png")
    train, val = detect_splits(tmp_path)
    for name in (train, val):
        (record,) = load_dataset(name).images
        assert [(each.category, each.box) for each in record.annotations if not each.crowd] == [
            (0, (0, 0, 1, 1)),
            (0, (2, 0, 3, 1)),
            (1, (3, 0, 4, 1)),
            (1, (5, 0, 6, 1)),
        ]
    assert 'the classes are called by their numbers, 1, 2; name them by @categories:{"1":"NAME"}' in caplog.text


def test_a_damaged_mask_does_not_hide_classes(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            Image.fromarray(np.array(ROWS["classes"], np.uint8)).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "masks/b.png").write_bytes((tmp_path / "masks/a.png").read_bytes()[:40])
    assert detect(tmp_path) == f'label_image:{tmp_path}/masks@{tmp_path}/images@categories:{{"1":"1","2":"2"}}'


def test_named_classes_are_left_to_their_file(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array(ROWS["classes"], np.uint8)).save(tmp_path / folder / "a.png")
    (tmp_path / "masks/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    assert detect(tmp_path) == f"label_image:{tmp_path}/masks@{tmp_path}/images"
    assert load_dataset(str(tmp_path)).classes == ["cat", "dog"]


def test_a_damaged_mask_does_not_hide_the_format(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        Image.effect_noise((64, 64), 50).convert("1").save(tmp_path / name / "0.png")
    mask = tmp_path / "masks/0.png"
    content = bytearray(mask.read_bytes())
    place = content.index(b"IDAT")
    content[place - 4 : place] = b"\0\0\0\1"  # a length of the chunk for which Pillow raises a SyntaxError
    mask.write_bytes(content)
    assert detect(tmp_path) == f"label_image:{tmp_path}/masks@{tmp_path}/images"


@pytest.mark.parametrize(
    ("folders", "names", "mode", "expected"),
    [
        (["SegmentationObject"], {}, "P", "label_image:{0}/SegmentationObject@{0}/JPEGImages@void:255"),
        (
            ["SegmentationClass"],
            {},
            "P",
            "label_image:{0}/SegmentationClass@{0}/JPEGImages@class_images:{0}/SegmentationClass@instances:component@void:255",
        ),
        (
            ["SegmentationClass", "SegmentationObject"],
            {"class_names.txt": "_background_\ncat\ndog"},
            "P",
            "label_image:{0}/SegmentationObject@{0}/JPEGImages@class_images:{0}/SegmentationClass"
            '@categories:{{"1":"cat","2":"dog"}}@void:255',
        ),
        (
            ["SegmentationClass", "SegmentationObject"],
            {"labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\na cat:250,50,83::\n"},
            "RGB",
            "label_image:{0}/SegmentationObject@{0}/JPEGImages@class_images:{0}/SegmentationClass"
            '@categories:{{"5452538":"a cat"}}@void:12640480',
        ),
    ],
)
def test_label_images_of_voc_need_no_xml(tmp_path, folders, names, mode, expected):
    for folder in ("JPEGImages", *folders):
        (tmp_path / folder).mkdir()
    for folder in folders:
        Image.new(mode, (8, 8)).save(tmp_path / folder / "a.png")
    for name, content in names.items():
        (tmp_path / name).write_text(content)
    assert detect(tmp_path) == expected.format(tmp_path)


def test_label_images_of_voc_are_read_with_their_splits(tmp_path):
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        for name in "ab":
            (tmp_path / folder).mkdir(exist_ok=True)
            color = {"JPEGImages": "gray", "SegmentationClass": (250, 50, 83), "SegmentationObject": (128, 0, 0)}[
                folder
            ]
            image = Image.new("RGB", (8, 8))
            image.paste(color, (2, 2, 5, 6))
            image.save(tmp_path / folder / f"{name}.png")
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ncat:250,50,83::")
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a")
    (lists / "val.txt").write_text("b")
    train, val = detect_splits(tmp_path)
    for name, image_id in ((train, "a"), (val, "b")):
        (record,) = get_dataset_dicts(name)
        assert record["image_id"] == image_id
        assert [each["bbox"] for each in record["annotations"]] == [[2, 2, 5, 6]]
