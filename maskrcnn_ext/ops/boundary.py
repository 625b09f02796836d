"""Boundaries of binary masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_boundary(masks: Tensor) -> Tensor:
    """The inner boundary of masks by the Laplacian, BMask R-CNN's target (arXiv:2007.08921, section 3.3).

    A pixel of the mask belongs to it if one of its eight neighbours does not belong to the mask; outside of the grid nothing does.

    Args:
        masks: (R, H, W) with R masks, boolean or 0 and 1.

    Returns:
        (R, H, W), 0 or 1, float32.
    """
    kernel = torch.full((1, 1, 3, 3), -1.0, device=masks.device)
    kernel[..., 1, 1] = 8.0
    response = F.conv2d(masks[:, None].to(kernel.dtype), kernel, padding=1)
    # The response is a whole number; half of one is a threshold that rounding cannot reach.
    return (response[:, 0] > 0.5).to(torch.float32)


def boundary_band(masks: Tensor) -> Tensor:
    """Pixels whose 3 x 3 neighbourhood holds both values: one pixel on either side of the boundary, the grid's edge not counted.

    Args:
        masks: (R, H, W), 0 or 1, floating point.

    Returns:
        (R, H, W), 0 or 1, of the same dtype.
    """
    highest = F.max_pool2d(masks[:, None], 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-masks[:, None], 3, stride=1, padding=1)
    return (highest - lowest)[:, 0]
