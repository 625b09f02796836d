"""Coarse-to-fine masks: where the boundary is, and a finer mask that replaces the coarser one there alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.ops.boundary import boundary_band


def boundary_region(masks: Tensor, width: int) -> Tensor:
    """Pixels at most ``width`` from one of the other value, diagonal steps counting one; the grid's edge is no boundary.

    This is the morphological gradient (dilation minus erosion) by a square of side 2 ``width`` + 1. RefineMask measures Euclidean
    distance and approximates it by a convolution (arXiv:2104.08569, section 3).

    Args:
        masks: (R, H, W) with R masks, boolean or 0 and 1.
        width: in pixels, at least 1.

    Returns:
        (R, H, W) boolean.
    """
    band = boundary_band(masks.float())
    return F.max_pool2d(band[:, None], 2 * width - 1, stride=1, padding=width - 1)[:, 0] > 0


def double_region(region: Tensor) -> Tensor:
    """Every pixel of (R, H, W) as a square of four: (R, 2 H, 2 W)."""
    return region.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def merge_at_boundary(coarse: Tensor, fine: Tensor, width: int) -> Tensor:
    """The coarse mask at twice its size, replaced by the fine one in the boundary region of the coarse (arXiv:2104.08569, section 3).

    Args:
        coarse: (R, H, W) logits; above 0 is foreground.
        fine: (R, 2 H, 2 W) logits.
        width: of the boundary region, in pixels of the coarse mask.

    Returns:
        (R, 2 H, 2 W) logits.
    """
    upsampled = F.interpolate(coarse[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]
    return torch.where(double_region(boundary_region(coarse > 0, width)), fine, upsampled)
