"""Pixels other than 8-bit colours get their own mean, deviation and first convolution."""

import pytest

from maskrcnn_ext.config.plan.machine import COCO, LITE, Machine
from maskrcnn_ext.config.plan.rules.model import choose_base
from maskrcnn_ext.config.plan.rules.pixels import choose_pixels
from maskrcnn_ext.config.plan.situation import Situation
from tests.helpers.labelled_images import make_fingerprint

STEM = "model.backbone.bottom_up.stem"


def pixels_of(*weights, **images):
    found = make_fingerprint(images=images)
    situation = Situation(found, found, Machine(weights=weights))
    return choose_pixels(situation, choose_base(situation))


def test_photographs_keep_the_mean_of_the_weights():
    assert pixels_of(LITE).settings == {}


@pytest.mark.parametrize(
    ("weights", "std", "stem"),
    [(LITE, 577.0, None), (COCO, 10.0, "maskrcnn_ext.InflatedStem"), ("", 577.0, None)],
)
def test_sixteen_bits_of_one_channel(weights, std, stem):
    figures = {"dtype": "uint16", "channels": 1, "image_format": "raw", "mean": (900.0,), "std": (577.0,)}
    found = pixels_of(weights, **figures, minimum=(0.0,), maximum=(4095.0,))
    assert found.settings["model.pixel_mean"] == [900.0]
    assert found.settings["model.pixel_std"] == pytest.approx([std])
    assert found.settings["dataloader.train.mapper.image_format"] == "raw"
    target = found.settings.get(f"{STEM}._target_")
    assert (target and target.path) == stem
    assert "0 to 4095" in found.reason


def test_five_channels():
    figures = {"dtype": "uint8", "channels": 5, "image_format": "raw", "mean": (9.0,) * 5, "std": (3.0,) * 5}
    found = pixels_of("", **figures)
    assert found.settings[f"{STEM}.in_channels"] == 5
    constant = pixels_of("", **{**figures, "std": (0.0,) * 5})
    assert constant.settings["model.pixel_std"] == [1.0] * 5
