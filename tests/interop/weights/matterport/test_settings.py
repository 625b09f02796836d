"""Settings of Matterport's Mask R-CNN: defaults, checks and the report."""

from __future__ import annotations

import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import KeyReport
from maskrcnn_ext.interop.weights.matterport.lazy_config import build_config
from maskrcnn_ext.interop.weights.matterport.settings import MatterportSettings, read_settings

SCRIPT = '''
"""Training script."""
import os, sys
import numpy as np
from mrcnn.config import Config
from mrcnn import model as modellib

raise SystemExit("executed")
ROOT_DIR = os.path.abspath("..")
VAL_IDS = ["a", "b", "c", "d"]

class NucleusConfig(Config):
    """Doc."""
    NAME = "nucleus"
    IMAGES_PER_GPU: int = 6
    NUM_CLASSES = 1 + 3
    STEPS_PER_EPOCH = (657 - len(VAL_IDS)) // IMAGES_PER_GPU
    VALIDATION_STEPS = max(1, len(VAL_IDS) // IMAGES_PER_GPU)
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 2 ** 7)
    MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
    LOSS_WEIGHTS = {"rpn_class_loss": 2., "mrcnn_mask_loss": 0.5}
    DETECTION_MIN_CONFIDENCE = 0
    LEARNING_RATE = -(-1e-3)
    OUR_OWN = 5
    OUR_PATH = os.path.join(ROOT_DIR, "logs")
    lower = 3

    def method(self):
        self.X = 1

class InferenceConfig(NucleusConfig):
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"

class Dataset(object):
    NUM_CLASSES = 99
'''


def settings_of(tmp_path, text, name="config.py"):
    (tmp_path / name.partition(":")[0]).write_text(text)
    return read_settings(tmp_path / name)


def test_every_setting_is_used_explained_or_named_as_unknown(tmp_path):
    settings = settings_of(tmp_path, SCRIPT, "nucleus.py")
    build_config(settings)
    report = KeyReport("weights.h5")
    settings.add_to_report(report)
    assert report.used["NUM_CLASSES"] == ["model.roi_heads.num_classes"]
    assert report.used["IMAGES_PER_GPU"] == ["dataloader.train.total_batch_size"]
    unknown = {name for name, reason in report.unused.items() if reason.startswith("UNKNOWN")}
    assert unknown == {"OUR_OWN", "OUR_PATH"}
    assert report.unused.keys() - unknown == {"NAME", "VALIDATION_STEPS"}


def test_the_shape_of_images_says_the_side_of_the_square():
    assert MatterportSettings("test", {"IMAGE_SHAPE": [512, 512, 3]})["IMAGE_MAX_DIM"] == 512
    with pytest.raises(InputError, match="IMAGE_MAX_DIM=1024 contradicts IMAGE_SHAPE, which has 512"):
        MatterportSettings("test", {"IMAGE_SHAPE": [512, 512, 3], "IMAGE_MAX_DIM": 1024})


def test_quotients_are_whole_numbers_where_these_are_meant():
    settings = MatterportSettings("test", {"IMAGE_MIN_DIM": 512 / 2, "IMAGE_MIN_SCALE": None, "IMAGE_SHAPE": "?"})
    assert repr(settings["IMAGE_MIN_DIM"]) == "256"
    assert settings["IMAGE_MIN_SCALE"] == 0
