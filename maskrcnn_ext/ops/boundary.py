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
    """Returns the pixels near a boundary: those where over a tenth of a square window has the other value (RefineMask, arXiv:2104.08569).

    This is the convolution by which the paper's section 3 approximates the distance to the boundary. With a width of 1, one pixel of the
    3 x 3 window is enough; with 2, it takes three of the 5 x 5. Outside the grid is background.

    Args:
        masks: (R, H, W), boolean or 0 and 1. R: masks.
        width: in pixels, at least 1; the side of the window is 2 ``width`` + 1.

    Returns:
        (R, H, W) boolean.
    """
    foreground = masks.float()[:, None]
    share = F.avg_pool2d(foreground, 2 * width + 1, stride=1, padding=width)
    return torch.where(foreground > 0, 1 - share, share)[:, 0] > 0.1


def double_region(region: Tensor) -> Tensor:
    """Returns (R, 2 H, 2 W) boolean: the region (R, H, W), enlarged with aligned corners."""
    return double_mask(region.float()) >= 0.5


def double_mask(masks: Tensor) -> Tensor:
    """Returns masks or logits (R, H, W), enlarged to (R, 2 H, 2 W) with aligned corners, as RefineMask's code does."""
    return F.interpolate(masks[:, None], scale_factor=2.0, mode="bilinear", align_corners=True)[:, 0]


def merge_at_boundary(coarse: Tensor, fine: Tensor, width: int) -> Tensor:
    """Returns the enlarged coarse mask, replaced by the fine one near the boundary of the coarse one (arXiv:2104.08569, section 3).

    Args:
        coarse: (R, H, W) logits; from 0 on is foreground.
        fine: (R, 2 H, 2 W) logits.
        width: of the boundary in pixels of the coarse mask, see :func:`boundary_region`.

    Returns:
        (R, 2 H, 2 W) logits.
    """
    return torch.where(double_region(boundary_region(coarse >= 0, width)), fine, double_mask(coarse))
