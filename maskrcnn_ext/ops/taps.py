"""Weighted sums of pixels in groups of any size: what every RoI operator of this package comes down to.

A *tap* is a pixel with a weight. The taps of one output bin stand side by side, and bins may have different numbers of them, so
that neither a large nor a narrow RoI pays for the others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def segments(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lays out groups of ``counts`` entries one after the other.

    On CUDA it waits for the device once: the number of entries decides how much memory is needed.

    Args:
        counts: (G,) int64 with G groups, not negative.

    Returns:
        The group of every entry (E,), the entry's position within its group (E,), and the first entry of every group (G,), int64,
        with E the sum of the counts.
    """
    starts = counts.cumsum(0) - counts
    groups = torch.repeat_interleave(counts)
    positions = torch.arange(len(groups), device=counts.device) - starts[groups]
    return groups, positions, starts


def sum_taps(features: Tensor, rows: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """Sums weighted pixels bin by bin, without a copy of the pixels for every tap.

    It computes in the weights' dtype and returns the features'. Gradients reach the features and the weights.

    Args:
        features: (N, C, H, W) with N images and C channels, floating point.
        rows: (E,) int64, the tap's pixel as ``(image * H + y) * W + x``.
        weights: (E,), float32 or float64.
        starts: (B,) int64, the first tap of each of B bins; a bin's taps end where the next bin's start. A bin may have none.

    Returns:
        (B, C).
    """
    table = features.to(weights.dtype).permute(0, 2, 3, 1).flatten(0, 2)
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights).to(features.dtype)
