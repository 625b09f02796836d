"""Warns if the values of images do not have the scale that a model was trained on, which makes its results wrong without an error."""

from __future__ import annotations

import logging

import numpy as np
from torch import nn

logger = logging.getLogger(__name__)

# The largest values of common kinds of images.
_TOPS = (1.0, 255.0, 4095.0, 65535.0)
# Beyond this many standard deviations from the mean, the brightest pixels are those of another scale.
_FAR = 20.0
# A percentile below this fraction of the mean is nearly black.
_DARK = 0.03
# Pixels that are looked at.
_SAMPLE = 10_000


class ValueScale:
    """The scale of a model's inputs.

    Example:
        ::

            ValueScale(model).check(pixels)
    """

    def __init__(self, model: nn.Module) -> None:
        """Reads ``pixel_mean`` and ``pixel_std`` of a GeneralizedRCNN."""
        self._mean = model.pixel_mean.flatten().double().cpu().numpy()
        self._std = model.pixel_std.flatten().double().cpu().numpy()
        # Many checkpoints have absorbed the deviation into their first weights.
        self._deviation = np.where(self._std == 1, np.abs(self._mean) / 2, self._std).max()
        self._is_eight_bit = bool((self._mean >= 1).all() and max(self._mean.max(), self._std.max()) <= 255)
        self._has_warned = False

    def check(self, pixels: np.ndarray) -> None:
        """Warns once, by the log, if an image (H, W, C) has another scale."""
        if self._has_warned or (self._is_eight_bit and pixels.dtype == np.uint8) or not self._deviation > 0:
            return
        sample = pixels.reshape(-1)[:: max(1, pixels.size // _SAMPLE)].astype(np.float64)
        high = float(np.percentile(np.abs(sample), 99))
        expected = float(np.abs(self._mean).max())
        if high == 0 or (high >= _DARK * expected and high - expected <= _FAR * self._deviation):
            return
        self._has_warned = True
        top = next((top for top in _TOPS if high <= top), high)
        model_top = 255.0 if self._is_eight_bit else next((one for one in _TOPS if expected <= one), expected)
        factor = top / model_top
        overrides = " ".join(
            f"model.{name}=[{','.join(f'{value * factor:.5g}' for value in values)}]"
            for name, values in (("pixel_mean", self._mean), ("pixel_std", self._std))
        )
        logger.warning(
            "The results may be wrong: the model takes values around pixel_mean=%s, and an image has values up to %.5g (%s). "
            "Scale the images, or set %s",
            [round(float(value), 3) for value in self._mean],
            high,
            pixels.dtype,
            overrides,
        )
