"""RoIWarp of "Instance-aware Semantic Segmentation via Multi-task Network Cascades" (arXiv:1512.04412), section 3.2."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align


def quantise_rois(rois: Tensor, spatial_scale: float) -> Tensor:
    """Returns RoIs on the grid of the feature map, as in RoIPool: corners are rounded, and the last pixel belongs to the RoI.

    Halves are always rounded up, so that the map is cut into cells of equal size.

    Args:
        rois: (M, 5): index of the image, then x0, y0, x1, y1 in pixels of the image.
        spatial_scale: pixels of the feature map per pixel of the image.

    Returns:
        (M, 5), corners in pixels of the feature map, whose first pixel spans 0 to 1. A RoI is at least one pixel large.
    """
    first, last = (rois[:, 1:] * spatial_scale + 0.5).floor().split(2, dim=1)
    return torch.cat([rois[:, :1], first, torch.maximum(first, last) + 1], dim=1)


def roi_warp(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    *,
    sampling_ratio: int,
    aligned: bool,
    aggregate: Literal["average", "max"],
) -> Tensor:
    """Returns the quantised RoIs, resampled bilinearly, as Mask R-CNN compares them to RoIAlign (arXiv:1703.06870, table 2c).

    It computes in float32 or float64. Features receive gradients; RoIs, which are rounded, do not.

    Args:
        features: (N, C, H, W), floating point. N: images, C: channels.
        rois: (M, 5): index of the image, then x0, y0, x1, y1 in pixels of the image. M: RoIs of all images.
        output_size: bins along the height and the width, (h, w).
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin and axis. 0 takes as many as a bin has pixels, rounded up, for the average, and 2 for the
            maximum (Mask R-CNN's four samples a bin).
        aligned: whether the centre of the first pixel is at 0.5 (RoIAlign's ``aligned``) or at 0.
        aggregate: how the samples of a bin are combined.

    Returns:
        (M, C, h, w), with the dtype of the features.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    grid = quantise_rois(rois.to(wide.dtype), spatial_scale)
    if aggregate == "average":
        return roi_align(wide, grid, output_size, 1.0, sampling_ratio, aligned).to(features.dtype)
    # One sample in each of n x n times as many bins: the same samples before aggregation.
    samples = sampling_ratio or 2
    fine_size = (output_size[0] * samples, output_size[1] * samples)
    return F.max_pool2d(roi_align(wide, grid, fine_size, 1.0, 1, aligned), samples).to(features.dtype)
