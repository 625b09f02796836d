"""Bilinear resizing as scikit-image's ``resize`` with ``mode="constant"``, which Keras's Mask R-CNN (Matterport) prepares images with."""

from __future__ import annotations

from typing import Any

import numpy as np


def zero_border_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolates between the four nearest pixels, without smoothing where it shrinks.

    Beyond the image is 0, which the outermost pixels of an enlarged image are mixed with. Values of integer images are cut off, not
    rounded.

    Args:
        image: (H, W) or (H, W, C).
        height: of the result.
        width: of the result.

    Returns:
        (height, width) or (height, width, C), of the image's dtype.
    """
    if image.shape[:2] == (height, width):
        return image
    resized = image.astype(np.float64)
    for axis, size in enumerate((height, width)):
        resized = _interpolate(resized, axis, size)
    return resized.astype(image.dtype)


def _interpolate(image: np.ndarray, axis: int, size: int) -> Any:
    """Resamples one axis at the centres of `size` pixels."""
    image = np.moveaxis(image, axis, 0)
    position = (np.arange(size) + 0.5) * (len(image) / size) - 0.5
    low = np.floor(position).astype(int)
    share = (position - low).reshape(-1, *[1] * (image.ndim - 1))
    padded = np.pad(image, [(1, 1), *[(0, 0)] * (image.ndim - 1)])
    left, right = padded[low + 1], padded[low + 2]
    # In this form what is even stays exactly even: values are cut off afterwards.
    return np.moveaxis(left + share * (right - left), 0, axis)
