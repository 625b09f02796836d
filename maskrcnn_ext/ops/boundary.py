"""Boundaries of binary masks, and masks that are refined at their boundary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_boundary(masks: Tensor) -> Tensor:
    """Returns the inner boundary of masks by the Laplacian, the target of BMask R-CNN (arXiv:2007.08921, section 3.3).

    It consists of the mask pixels with a neighbour (of eight) outside the mask. Outside the grid there is no mask.

    Args:
        masks: (R, H, W), boolean or 0 and 1. R: masks.

    Returns:
        (R, H, W), 0 or 1, float32.
    """
    kernel = torch.full((1, 1, 3, 3), -1.0, device=masks.device)
    kernel[..., 1, 1] = 8.0
    response = F.conv2d(masks[:, None].to(kernel.dtype), kernel, padding=1)
    # The response is an integer, so rounding errors cannot cross 0.5.
    return (response[:, 0] > 0.5).to(torch.float32)


def boundary_band(masks: Tensor) -> Tensor:
    """Returns the pixels on either side of a boundary: those whose 3 x 3 neighbourhood has both values. The grid's edge is no boundary.

    Args:
        masks: (R, H, W), 0 or 1, floating point.

    Returns:
        (R, H, W), 0 or 1, of the same dtype.
    """
    highest = F.max_pool2d(masks[:, None], 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-masks[:, None], 3, stride=1, padding=1)
    return (highest - lowest)[:, 0]


def boundary_region(masks: Tensor, width: int) -> Tensor:
    """Returns the pixels at most ``width`` steps, also diagonal ones, from a pixel of the other value. The grid's edge is no boundary.

    This is the morphological gradient (dilation minus erosion) by a square of side 2 ``width`` + 1. RefineMask uses the Euclidean distance
    and approximates it by a convolution (arXiv:2104.08569, section 3).

    Args:
        masks: (R, H, W), boolean or 0 and 1. R: masks.
        width: in pixels, at least 1.

    Returns:
        (R, H, W) boolean.
    """
    band = boundary_band(masks.float())
    return F.max_pool2d(band[:, None], 2 * width - 1, stride=1, padding=width - 1)[:, 0] > 0


def double_region(region: Tensor) -> Tensor:
    """Returns (R, 2 H, 2 W): each pixel of (R, H, W) becomes a square of four."""
    return region.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def merge_at_boundary(coarse: Tensor, fine: Tensor, width: int) -> Tensor:
    """Returns the upsampled coarse mask, replaced by the fine one near the boundary of the coarse one (arXiv:2104.08569, section 3).

    Args:
        coarse: (R, H, W) logits; above 0 is foreground.
        fine: (R, 2 H, 2 W) logits.
        width: width of the boundary region in pixels of the coarse mask.

    Returns:
        (R, 2 H, 2 W) logits.
    """
    upsampled = F.interpolate(coarse[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]
    return torch.where(double_region(boundary_region(coarse > 0, width)), fine, upsampled)
