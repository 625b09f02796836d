"""Pixels other than 8-bit colours get their own mean, deviation and first convolution."""

import numpy as np
import pytest
import torch

from maskrcnn_ext.config.plan.machine import COCO, LITE, Machine
from maskrcnn_ext.config.plan.rules.model import choose_base
from maskrcnn_ext.config.plan.rules.pixels import choose_pixels
from maskrcnn_ext.config.plan.situation import Situation
from maskrcnn_ext.modeling.backbones.input_conversion import InputConversion
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


def test_colours_of_16_bits_look_like_imagenets_to_the_backbone(tmp_path):
    """The backbone converts what the model normalises by the data's own figures as it converts 8-bit colours."""
    colours = np.random.default_rng(0).integers(0, 60_000, (64, 64, 3)).astype(np.uint16)
    mean, std = colours.mean((0, 1)), colours.std((0, 1))
    figures = {"dtype": "uint16", "channels": 3, "image_format": "raw", "mean": tuple(mean), "std": tuple(std)}
    settings = pixels_of(LITE, **figures).settings
    normalised = (colours - settings["model.pixel_mean"]) / settings["model.pixel_std"]
    own = {key.rpartition(".")[2]: value for key, value in settings.items() if key.startswith("model.backbone")}
    conversion = InputConversion(
        *(own["pixel_mean"], own["pixel_std"], own["input_format"]),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    found = conversion(torch.from_numpy(normalised).permute(2, 0, 1)[None].float())
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    assert not conversion.flips


def test_five_channels():
    figures = {"dtype": "uint8", "channels": 5, "image_format": "raw", "mean": (9.0,) * 5, "std": (3.0,) * 5}
    found = pixels_of("", **figures)
    assert found.settings[f"{STEM}.in_channels"] == 5
    constant = pixels_of("", **{**figures, "std": (0.0,) * 5})
    assert constant.settings["model.pixel_std"] == [1.0] * 5
