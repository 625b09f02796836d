"""Weighted sums of pixels, on which the RoI operators of this package are built.

A *tap* is a pixel with a weight. The taps of one output bin are contiguous. Bins may have different numbers of taps, so that the cost of a
RoI depends on its own size only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def segments(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the layout of groups of ``counts`` entries in one list.

    On CUDA it synchronises once, because the number of entries decides how much memory is needed.

    Args:
        counts: (G,) int64 with G groups, not negative.

    Returns:
        The group of each entry (E,), its position within the group (E,), and the first entry of each group (G,), int64.
        E: sum of the counts.
    """
    starts = counts.cumsum(0) - counts
    groups = torch.repeat_interleave(counts)
    positions = torch.arange(len(groups), device=counts.device) - starts[groups]
    return groups, positions, starts


def sum_taps(features: Tensor, rows: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """Returns the weighted sum of pixels for each bin, without copying the pixels of the taps.

    It computes in the dtype of the weights and returns the dtype of the features. Features and weights receive gradients.

    Args:
        features: (N, C, H, W) with N images and C channels, floating point.
        rows: (E,) int64, the pixel of each tap as ``(image * H + y) * W + x``.
        weights: (E,), float32 or float64.
        starts: (B,) int64, the first tap of each of B bins; a bin's taps end where the next bin's start. A bin may have none.

    Returns:
        (B, C).
    """
    table = features.to(weights.dtype).permute(0, 2, 3, 1).flatten(0, 2)
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights).to(features.dtype)


def _neighbours(position: Tensor, size: int, margin: int) -> tuple[Tensor, Tensor]:
    """Returns the two pixels next to a position on one axis and their weights, both (..., 2)."""
    inside = (position >= -margin) & (position <= size - 1 + margin)
    position = position.clamp(0, size - 1)
    # Clamped again as integers: a NaN may become any integer.
    low = position.floor().long().clamp(0, size - 1)
    upper_weight = position - low
    weights = torch.stack([1 - upper_weight, upper_weight], dim=-1) * inside[..., None]
    return torch.stack([low, (low + 1).clamp(max=size - 1)], dim=-1), weights


def bilinear_taps(
    images: Tensor, y: Tensor, x: Tensor, *, height: int, width: int, margin: int
) -> tuple[Tensor, Tensor]:
    """Returns the taps on the four neighbours of points, for :func:`sum_taps`. ``y`` and ``x`` receive gradients from the weights.

    Args:
        images: (P,) int64, the image of each point.
        y: (P,), float32 or float64, in pixels; the centre of the first pixel is 0.
        x: like ``y``.
        height: of the feature map, in pixels.
        width: of the feature map, in pixels.
        margin: number of pixels beyond the outermost centres within which a point takes the value of the border; farther out it is 0.
            1 in RoIAlign, 0 in ``tf.image.crop_and_resize``.

    Returns:
        Rows (P, 4) int64 and weights (P, 4) of the points' dtype.
    """
    rows_y, weights_y = _neighbours(y, height, margin)
    rows_x, weights_x = _neighbours(x, width, margin)
    rows = (images[:, None, None] * height + rows_y[:, :, None]) * width + rows_x[:, None, :]
    return rows.flatten(1), (weights_y[:, :, None] * weights_x[:, None, :]).flatten(1)
