"""RoIWarp of "Instance-aware Semantic Segmentation via Multi-task Network Cascades" (arXiv:1512.04412), section 3.2."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align


def quantise_rois(rois: Tensor, spatial_scale: float) -> Tensor:
    """Moves RoIs onto the feature map's grid as RoIPool does: rounded corners, and the last pixel belongs to the RoI.

    Halves are rounded up, wherever they lie, so that the map is cut into cells of equal size.

    Args:
        rois: (M, 5) with M RoIs: the image's index, then x0, y0, x1, y1 in pixels of the image.
        spatial_scale: pixels of the feature map per pixel of the image.

    Returns:
        (M, 5), corners in pixels of the feature map, whose first pixel reaches from 0 to 1; a RoI is at least one pixel large.
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
    """Resamples the quantised RoI bilinearly, as Mask R-CNN compares it with RoIAlign (arXiv:1703.06870, table 2c).

    It computes in float32 at least. Gradients reach the features, not the RoIs, which are rounded.

    Args:
        features: (N, C, H, W) with N images and C channels, floating point.
        rois: (M, 5) with M RoIs of all images: the image's index, then x0, y0, x1, y1 in pixels of the image.
        output_size: bins along the height and the width, (h, w).
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin and axis. 0 takes as many as a bin has pixels, rounded up, for the average, and 2 for the
            maximum (Mask R-CNN's four samples a bin).
        aligned: whether the centre of the first pixel is at 0.5 (RoIAlign's ``aligned``) or at 0.
        aggregate: what becomes of a bin's samples.

    Returns:
        (M, C, h, w), of the features' dtype.
    """
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    grid = quantise_rois(rois.to(wide.dtype), spatial_scale)
    if aggregate == "average":
        return roi_align(wide, grid, output_size, 1.0, sampling_ratio, aligned).to(features.dtype)
    # One sample in each of n x n times as many bins: the same samples, not yet aggregated.
    samples = sampling_ratio or 2
    fine_size = (output_size[0] * samples, output_size[1] * samples)
    return F.max_pool2d(roi_align(wide, grid, fine_size, 1.0, 1, aligned), samples).to(features.dtype)
