"""Settings of Matterport's Mask R-CNN read from files, without executing them."""

from __future__ import annotations

import pytest

from maskrcnn_ext.common.nested import count_values
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.matterport.lazy_config import build_config
from maskrcnn_ext.interop.weights.matterport.settings import read_settings
from maskrcnn_ext.interop.weights.matterport.settings_file import read_settings_file
from tests.helpers.matterport_script import SCRIPT

DISPLAYED = """
Configurations:
BACKBONE                       resnet50
BACKBONE_STRIDES               [4, 8, 16, 32, 64]
BATCH_SIZE                     8
BBOX_STD_DEV                   [0.1 0.1 0.2 0.2]
COMPUTE_BACKBONE_SHAPE         None
DETECTION_MIN_CONFIDENCE       0.9
GPU_COUNT                      1
IMAGES_PER_GPU                 8
IMAGE_MAX_DIM                  128
IMAGE_MIN_DIM                  128
IMAGE_RESIZE_MODE              square
IMAGE_SHAPE                    [128 128   3]
LOSS_WEIGHTS                   {'rpn_class_loss': 1.0, 'rpn_bbox_loss': 1.0}
MEAN_PIXEL                     [123.7 116.8 103.9]
NAME                           shapes
RPN_ANCHOR_SCALES              (8, 16, 32, 64, 128)
USE_MINI_MASK                  True


"""


def settings_of(tmp_path, text, name="config.py"):
    (tmp_path / name.partition(":")[0]).write_text(text)
    return read_settings(tmp_path / name)


def test_a_script_is_read_and_not_executed(tmp_path):
    (tmp_path / "nucleus.py").write_text(SCRIPT)
    values = read_settings_file(tmp_path / "nucleus.py")
    assert values["NUM_CLASSES"] == 4
    assert values["STEPS_PER_EPOCH"] == 108  # with the base's own IMAGES_PER_GPU, as Python would
    assert values["VALIDATION_STEPS"] == 1
    assert values["IMAGES_PER_GPU"] == 1
    assert values["RPN_ANCHOR_SCALES"] == [8, 16, 32, 64, 128]
    assert values["MEAN_PIXEL"] == [43.53, 39.56, 48.22]
    assert values["LEARNING_RATE"] == 1e-3
    assert values["IMAGE_RESIZE_MODE"] == "pad64"
    assert not {"lower", "ROOT_DIR", "VAL_IDS", "X"} & values.keys()
    assert read_settings_file(tmp_path / "nucleus.py:NucleusConfig")["IMAGES_PER_GPU"] == 6


def test_the_output_of_display_is_read(tmp_path):
    settings = settings_of(tmp_path, DISPLAYED, "log.txt")
    assert settings["BACKBONE"] == "resnet50"
    assert settings["BBOX_STD_DEV"] == [0.1, 0.1, 0.2, 0.2]
    assert settings["RPN_ANCHOR_SCALES"] == [8, 16, 32, 64, 128]
    assert settings["LOSS_WEIGHTS"]["mrcnn_bbox_loss"] == 1.0
    assert build_config(settings).dataloader.train.total_batch_size == 8


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "class A(Config):\n  NUM_CLASSES = count()\n", "a.py, line 2: NUM_CLASSES is not a literal"),
        (
            "a.py",
            "class A(Config):\n  RPN_NMS_THRESHOLD = 9 ** 9 ** 9 ** 9\n",
            "line 2: RPN_NMS_THRESHOLD is not a literal",
        ),
        ("a.py", "class A(Config):\n  POOL_SIZE = 1 // 0\n", "line 2: POOL_SIZE is not a literal"),
        (
            "a.py",
            "class A(Config):\n  X = 1\nclass B(Config):\n  X = 2\n",
            "contains the classes A, B: choose one, as in .*a.py:A",
        ),
        ("a.py:C", "class A(Config):\n  X = 1\n", "no class C of settings: choose from A"),
        ("a.py", "X = 1\n", "contains no class of settings"),
        ("a.py", "class A(Config):\n  pass\n", "contains no settings such as NUM_CLASSES"),
        ("a.py", "class A(:\n", "not Python"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "expected a JSON object"),
        ("a.txt", "nothing of the kind\n", "no settings such as NUM_CLASSES"),
        ("a.json", '{"BACKBONE": 3}', "BACKBONE=3: expected a string"),
        ("a.json", '{"NUM_CLASSES": 2.5}', "NUM_CLASSES=2.5: expected a whole number"),
        ("a.json", '{"LEARNING_RATE": true}', "LEARNING_RATE=True: expected a number"),
        ("a.json", '{"RPN_ANCHOR_RATIOS": [1, 0]}', "expected a list of numbers above 0"),
        ("a.json", '{"RPN_ANCHOR_SCALES": [8]}', "expected 5 numbers above 0"),
        ("a.json", '{"LOSS_WEIGHTS": {"other": 1}}', "expected numbers for rpn_class_loss"),
        ("a.json", '{"RPN_ANCHOR_STRIDE": 2}', "RPN_ANCHOR_STRIDE=2: only networks with 1"),
        ("a.json", '{"USE_RPN_ROIS": false}', "USE_RPN_ROIS=False: only networks with True"),
        ("a.json", '{"IMAGE_RESIZE_MODE": "fit"}', "expected square, pad64, none or crop"),
        ("a.json", '{"IMAGE_MAX_DIM": 100}', "expected a multiple of 64"),
        ("a.json", '{"MEAN_PIXEL": [1, 2]}', "expected 3 numbers"),
        ("a.json", '{"MASK_SHAPE": [56, 56]}', "MASK_POOL_SIZE=14 needs"),
        ("a.json", '{"IMAGE_RESIZE_MODE": "crop", "IMAGE_MIN_DIM": 0}', "expected the side of the crops"),
    ],
)
def test_unreadable_and_inconvertible_settings_are_reported_in_one_line(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message) as error:
        build_config(settings_of(tmp_path, text, name))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot read it as text"):
        read_settings(tmp_path / "absent.py")


def test_values_that_repeat_others_stay_small(tmp_path):
    lines = ["A0 = [1, 1]", *(f"A{n} = [A{n - 1}, A{n - 1}]" for n in range(1, 60)), "MEAN_PIXEL = A59"]
    (tmp_path / "a.py").write_text(
        "from mrcnn.config import Config\nclass MyConfig(Config):\n    " + "\n    ".join(lines)
    )
    assert count_values(read_settings_file(tmp_path / "a.py")["MEAN_PIXEL"]) <= 100_000
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not JSON"):
        read_settings_file(tmp_path / "deep.json")
