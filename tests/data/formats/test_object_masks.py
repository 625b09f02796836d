"""One file for each mask, of an object or of a class, in folders of classes or images."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.object_masks import read_object_masks
from maskrcnn_ext.data.registry.detect import detect


@pytest.fixture
def save(tmp_path):
    """Saves images `a` and `a_1`, and returns a function that saves masks below ``masks``."""
    for name in ("a", "a_1"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / f"images/{name}.jpg")

    def save(name, *boxes, mode="L", values=(255, 255)):
        mask = Image.new(mode, (6, 4))
        for box, value in zip(boxes, values, strict=False):
            mask.paste(value, box)
        file = tmp_path / "masks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        mask.save(file)
        return tmp_path / "masks", tmp_path / "images"

    return save


LEFT, RIGHT = (0, 0, 2, 2), (4, 1, 6, 4)


def objects_of(data):
    return {
        record.image_id: [(data.classes[each.category], each.box) for each in record.annotations]
        for record in data.images
    }


@pytest.mark.parametrize(
    "names",
    [
        ("a_0.png", "a_2.png"),
        ("a_instance_1.png", "a_instance_2.png"),
        ("a-mask (1).tif", "a-mask (2).tif"),
        ("a/x.png", "a/y.png"),
    ],
)
def test_a_mask_of_an_object(save, tmp_path, names):
    save(names[0], LEFT, RIGHT)
    folders = save(names[1], RIGHT, mode="1", values=[1])
    assert objects_of(read_object_masks(*folders)) == {"a": [("object", (0, 0, 6, 4)), ("object", RIGHT)]}
    assert detect(tmp_path) == f"object_masks:{tmp_path}/masks@{tmp_path}/images"


def test_the_longest_name_of_an_image_counts(save):
    folders = save("a_1_1.png", LEFT)
    assert objects_of(read_object_masks(*folders)) == {"a_1": [("object", LEFT)]}


def test_folders_are_classes_and_parts_are_objects(save, tmp_path, caplog):
    save("cat/a.png", LEFT, RIGHT)
    save("dog/a.png", (2, 2, 4, 4))
    save("dog/a_1.png", LEFT, (1, 0, 3, 2), values=[1, 2])
    folders = save("cow/a_1.png")
    data = read_object_masks(*folders)
    assert data.classes == ["cat", "cow", "dog"]
    assert objects_of(data) == {
        "a": [("cat", LEFT), ("cat", RIGHT), ("dog", (2, 2, 4, 4))],
        "a_1": [("dog", (0, 0, 1, 2)), ("dog", (1, 0, 3, 2))],
    }
    mask = mask_util.decode(data.images[0].annotations[1].segmentation)
    np.testing.assert_array_equal(np.argwhere(mask).min(axis=0), [1, 4])
    assert f"left out 1 mask without a pixel, such as {folders[0]}/cow/a_1.png" in caplog.text
    assert detect(tmp_path) is None  # the numbers of dog/a_1.png may mean anything
    save("dog/a_1.png", LEFT)
    assert len(get_dataset_dicts(str(tmp_path))) == 2
    with pytest.raises(InputError, match=r"cat/a\.png: class 'cat', expected one of dog, cow"):
        read_object_masks(*folders, classes=["dog", "cow"])


def test_a_folder_of_a_class_has_black_and_white_masks(save, tmp_path):
    save("cat/a.png", LEFT)
    assert detect(tmp_path) == f"object_masks:{tmp_path}/masks@{tmp_path}/images"
    save("cat/a.png", LEFT, RIGHT, values=[1, 2])
    assert detect(tmp_path) is None


def test_folders_of_splits_are_no_classes(save, tmp_path):
    save("train/a.png", LEFT)
    save("val/a_1.png", LEFT)
    (tmp_path / "images/train").mkdir()
    assert detect(tmp_path) is None


def test_broken_masks_are_named_or_collected(save, caplog):
    save("a_0.png", LEFT)
    save("b_0.png", LEFT)
    save("a_x.png", LEFT)
    folders = save("cat/a.png", LEFT, RIGHT, values=[7, 255])
    Image.new("L", (5, 4)).save(folders[0] / "a_9.png")
    with pytest.raises(InputError, match=r"a_x\.png: no image in .* has its name"):
        read_object_masks(*folders)
    faults = []
    data = read_object_masks(*folders, faults=faults)
    assert objects_of(data) == {"a": [("object", LEFT)]}
    assert [fault.partition(": ")[2].split(",")[0] for fault in sorted(faults)] == [
        "mask is 5 x 4",
        f"no image in {folders[1]} has its name",
        f"no image in {folders[1]} has its name",
        "has 2 values up to 255",
    ]
    assert "left out 1 image without labels, such as a_1.jpg" in caplog.text
    (folders[0].parent / "none").mkdir()
    with pytest.raises(InputError, match="none: no masks here"):
        read_object_masks(folders[0].parent / "none", folders[1])
