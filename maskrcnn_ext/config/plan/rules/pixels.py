"""Chooses how pixels are read and normalised, and the first convolution for images of other channels."""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.config.plan.choice import Choice, Target
from maskrcnn_ext.config.plan.machine import LITE, TIMM_LITE
from maskrcnn_ext.config.plan.rules.model import Base
from maskrcnn_ext.config.plan.situation import Situation
from maskrcnn_ext.data.tools.stats import IMAGENET_STD

# Mean and deviation of red, green and blue, of pixels of 8 bits.
IMAGENET_RGB = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_LITE_SCALE = 127.5  # EfficientNet-Lite's weights were trained on values of -1 to 1


def choose_pixels(situation: Situation, base: Base) -> Choice:
    """Returns the choice of pixel_mean, pixel_std, channels and stem."""
    images = situation.train.images
    value = f"{plural(images.channels, 'channel')} of {images.dtype}"
    if images.image_format == "BGR" and images.dtype == "uint8":
        return Choice("pixels", "8-bit, mean of ImageNet", "the weights' own" if base.weights else "8-bit images")
    std = [round(value / _deviation(base, images.channels), 6) or 1.0 for value in images.std]
    settings: dict[str, Any] = {
        "model.pixel_mean": [round(value, 4) for value in images.mean],
        "model.pixel_std": std,
        "dataloader.train.mapper.image_format": images.image_format,
        "model.input_format": "L",  # for the pictures of the training
    }
    bottom_up = "model.backbone.bottom_up"
    if images.channels == 3 and base.is_timm:
        # Colours of another depth, normalised by their own figures, look to the backbone as ImageNet's do normalised by theirs.
        mean, deviation = IMAGENET_RGB
        settings |= {
            f"{bottom_up}.pixel_mean": list(mean),
            f"{bottom_up}.pixel_std": list(deviation),
            f"{bottom_up}.input_format": "RGB",  # the order of raw colours
        }
    if images.channels != 3 and not base.is_timm:
        settings[f"{bottom_up}.stem.in_channels"] = images.channels
        if base.weights:
            settings[f"{bottom_up}.stem._target_"] = Target("maskrcnn_ext.InflatedStem")
            if images.channels < 3:
                seen = [min(channel, images.channels - 1) for channel in range(3)]
                settings[f"{bottom_up}.stem.pretrained_channels"] = seen
    if base.weights:
        settings[f"{bottom_up}.freeze_at"] = 0
    low, high = min(images.minimum), max(images.maximum)
    return Choice("pixels", f"{value}, own mean and deviation", f"values from {low:g} to {high:g}", settings)


def _deviation(base: Base, channels: int) -> float:
    """Returns the deviation of the pixels that the backbone should get: that of ImageNet's in the training of its weights."""
    if base.weights in (LITE, TIMM_LITE) and channels != 3:
        return IMAGENET_STD / _LITE_SCALE
    # ResNet's weights were trained without dividing by the deviation. The backbone converts three channels for networks of timm.
    return IMAGENET_STD if base.weights and not base.is_timm else 1.0
