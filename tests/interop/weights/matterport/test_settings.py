"""Settings of Matterport's Mask R-CNN: defaults, checks and the report."""

from __future__ import annotations

import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import KeyReport
from maskrcnn_ext.interop.weights.matterport.lazy_config import build_config
from maskrcnn_ext.interop.weights.matterport.settings import MatterportSettings, read_settings
from tests.helpers.matterport_script import SCRIPT


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


def test_the_side_of_the_square_follows_the_shape_of_images():
    assert MatterportSettings("test", {"IMAGE_SHAPE": [512, 512, 3]})["IMAGE_MAX_DIM"] == 512
    with pytest.raises(InputError, match="IMAGE_MAX_DIM=1024 contradicts IMAGE_SHAPE, which has 512"):
        MatterportSettings("test", {"IMAGE_SHAPE": [512, 512, 3], "IMAGE_MAX_DIM": 1024})


def test_quotients_are_whole_numbers_where_these_are_meant():
    settings = MatterportSettings("test", {"IMAGE_MIN_DIM": 512 / 2, "IMAGE_MIN_SCALE": None, "IMAGE_SHAPE": "?"})
    assert repr(settings["IMAGE_MIN_DIM"]) == "256"
    assert settings["IMAGE_MIN_SCALE"] == 0
