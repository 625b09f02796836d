"""The label image writer: every pixel and class comes back."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.label_image import read_label_image
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import find_writer
from tests.helpers.written_sets import assert_same, make_set, square


def test_label_images_are_restored_pixel_by_pixel(tmp_path):
    data = make_set(tmp_path, [square(0, 0, 7), square(20, 5, 11), square(55, 35, 5)])
    assert not find_writer("label_image")(data, tmp_path / "out", link=False)
    labels = cv2.imread(str(tmp_path / "out/labels/a.png"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16
    after = read_label_image(tmp_path / "out/labels", tmp_path / "out/images", classes=["thing"])
    assert_same(data, after, lowest=1.0, pixel=0)


def test_label_images_keep_the_classes(tmp_path):
    objects = [square(0, 0, 7), square(20, 5, 11)]
    objects[1].category = 1
    data = make_set(tmp_path, objects)
    data.classes = ["cat", "dog"]
    find_writer("label_image")(data, tmp_path / "out", link=False)
    spec = f"label_image:{tmp_path / 'out/labels'}@{tmp_path / 'out/images'}"
    assert_same(data, load_dataset(spec), lowest=1.0, pixel=0)
    assert load_dataset(spec).classes == ["cat", "dog"]
    file = tmp_path / "out/classes.json"
    for text, message in (
        ('{"classes": ["cat"], "objects": {"a.png": [0, 1]}}', "expected"),
        (
            '{"classes": ["cat"], "objects": {"a.png": [0]}}',
            "has a number above 1, the number of its objects in classes.json",
        ),
        ("[]", "expected"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_label_image(tmp_path / "out/labels", tmp_path / "out/images")


def test_in_a_label_image_the_later_object_wins_and_hidden_ones_leave(tmp_path, capsys):
    hidden, half, last = square(5, 5, 4), square(0, 0, 12), square(6, 6, 20)
    half.category, last.category = 1, 2
    data = make_set(tmp_path, [hidden, half, last], classes=("a", "b", "c"))
    lost = find_writer("label_image")(data, tmp_path / "out", link=False)
    assert lost["objects left out because none of their pixels is visible"] == 1
    assert lost["pixels that two objects share, which the later one keeps"] == 16 + 36
    labels = cv2.imread(str(tmp_path / "out/labels/a.png"), cv2.IMREAD_UNCHANGED)
    assert (np.unique(labels).tolist(), labels[7, 7], labels[0, 0]) == ([0, 1, 2], 2, 1)
    content = json.loads((tmp_path / "out/classes.json").read_text())
    assert content == {"classes": ["a", "b", "c"], "objects": {"a.png": [1, 2]}}
