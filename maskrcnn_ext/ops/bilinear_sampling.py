"""Bilinear interpolation at any point of a feature map, as taps on its four neighbours."""

from __future__ import annotations

import torch
from torch import Tensor


def _neighbours(position: Tensor, size: int, margin: int) -> tuple[Tensor, Tensor]:
    """The two pixels next to a position on one axis and their weights, both (..., 2)."""
    inside = (position >= -margin) & (position <= size - 1 + margin)
    position = position.clamp(0, size - 1)
    # Clamped as integers, too: what a NaN turns into must not point outside the map.
    low = position.floor().long().clamp(0, size - 1)
    upper_weight = position - low
    weights = torch.stack([1 - upper_weight, upper_weight], dim=-1) * inside[..., None]
    return torch.stack([low, (low + 1).clamp(max=size - 1)], dim=-1), weights


def bilinear_taps(
    images: Tensor, y: Tensor, x: Tensor, *, height: int, width: int, margin: int
) -> tuple[Tensor, Tensor]:
    """Turns points into taps for :func:`maskrcnn_ext.ops.taps.sum_taps`. Gradients reach the weights from ``y`` and ``x``.

    Args:
        images: (P,) int64, the image of each of P points.
        y: (P,), float32 or float64, in pixels; the centre of the first pixel is 0.
        x: like ``y``.
        height: of the feature map, in pixels.
        width: of the feature map, in pixels.
        margin: how many pixels beyond the outermost centres a point still takes the border's value; farther out it is 0.
            RoIAlign's is 1, ``tf.image.crop_and_resize``'s 0.

    Returns:
        Rows (P, 4) int64 and weights (P, 4) of the points' dtype.
    """
    rows_y, weights_y = _neighbours(y, height, margin)
    rows_x, weights_x = _neighbours(x, width, margin)
    rows = (images[:, None, None] * height + rows_y[:, :, None]) * width + rows_x[:, None, :]
    return rows.flatten(1), (weights_y[:, :, None] * weights_x[:, None, :]).flatten(1)
