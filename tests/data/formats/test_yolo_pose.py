"""Keypoints in YOLO texts: both forms, names and pairs, and rows that do not fit."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.yolo import read_yolo
from maskrcnn_ext.data.formats.yolo_pose import read_pose
from maskrcnn_ext.data.registry.keypoints import flip_map
from maskrcnn_ext.data.registry.splits import detect_splits

COCO_FLIPS = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


@pytest.fixture
def write(tmp_path):
    def write(rows, shape, extra=""):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (50, 40)).save(tmp_path / "images/a.jpg")
        (tmp_path / "labels/a.txt").write_text(rows)
        (tmp_path / "data.yaml").write_text(f"train: images\nval: images\nnames: [mouse]\nkpt_shape: {shape}\n{extra}")
        return tmp_path / "data.yaml"

    return write


def test_keypoints_with_visibility(write, tmp_path):
    file = write("0 0.5 0.5 0.2 0.5 0.1 0.25 2 0.5 1.004 1 0.7 9 0\n0 0.5 0.5 0.2 0.5\n", [3, 3], "flip_idx: [0, 2, 1]")
    data = read_yolo(file)
    first, second = data.images[0].annotations
    np.testing.assert_allclose(first.box, [20, 10, 30, 30])
    np.testing.assert_allclose(first.keypoints, [5, 10, 2, 25, 40, 1, 0, 0, 0])
    assert (first.segmentation, second.keypoints) == (None, None)
    assert data.keypoints == ["0", "1_l", "1_r"]
    assert flip_map(data.keypoints) == [("1_l", "1_r")]
    assert detect_splits(tmp_path) == (f"yolo:{file}@train", f"yolo:{file}@val")


def test_keypoints_without_visibility_are_visible_unless_they_are_0(write):
    data = read_yolo(write("0 0.5 0.5 0.2 0.5 0.1 0.25 0 0\n", "[2, 2]", "kpt_names: {0: [nose, tail]}"))
    np.testing.assert_allclose(data.images[0].annotations[0].keypoints, [5, 10, 2, 0, 0, 0])
    assert data.keypoints == ["nose", "tail"]


def test_the_pairs_of_coco_mean_its_keypoints(tmp_path):
    from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES

    assert read_pose({"kpt_shape": [17, 3], "flip_idx": COCO_FLIPS}, tmp_path).names == list(COCO_PERSON_KEYPOINT_NAMES)
    assert read_pose({"kpt_shape": [17, 3]}, tmp_path).names == [str(index) for index in range(17)]
    assert read_pose({}, tmp_path) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.2 0.5 0.1 0.2", "line 1: 2 numbers after the box, expected 1 x 3 for keypoints"),
        ("0 0.5 0.5 0.2 0.5 0.1 0.2 3", "line 1: the visibility of keypoint 0 is 3, expected 0, 1 or 2"),
        ("0 0.5 0.5 0.2 0.5 1.1 0.2 2", r"line 1: keypoint 0 \(1\.1, 0\.2\) is outside of the image"),
    ],
)
def test_rows_that_do_not_fit(write, row, message):
    with pytest.raises(InputError, match=message):
        read_yolo(write(row, "[1, 3]"))
