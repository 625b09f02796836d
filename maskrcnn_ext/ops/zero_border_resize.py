"""Bilinear resizing like scikit-image's ``resize`` with ``mode="constant"``, with which Keras's Mask R-CNN (Matterport) prepares images."""

from __future__ import annotations

from typing import Any

import numpy as np


def zero_border_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the image resized by bilinear interpolation, without anti-aliasing.

    Pixels beyond the image are 0 and are mixed into the border of an enlarged image. Values of integer images are truncated, not rounded.

    Args:
        image: (H, W) or (H, W, C).
        height: height of the result.
        width: width of the result.

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
    # This form keeps constant regions exact, which matters because values are truncated afterwards.
    return np.moveaxis(left + share * (right - left), 0, axis)
