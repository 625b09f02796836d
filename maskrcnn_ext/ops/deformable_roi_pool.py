"""Deformable RoI pooling (arXiv:1703.06211, section 2.2): RoIAlign with an offset for each bin."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_ext.ops.taps import bilinear_taps, segments, sum_taps


def deformable_roi_pool(
    features: Tensor,
    rois: Tensor,
    offsets: Tensor,
    spatial_scale: float,
    *,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Returns the average of bilinear samples in each bin, shifted by the offset of the bin (equation 5).

    With zero offsets it is RoIAlign. A sample more than a pixel outside the map is 0; a nearer one takes the value of the border. It
    computes in float32 or float64. Features and offsets receive gradients, RoIs do not. On CUDA it synchronises once, for the number of
    samples.

    Args:
        features: (N, C, H, W), floating point. N: images, C: channels.
        rois: (M, 5): index of the image, then x0, y0, x1, y1 in pixels of the image. M: RoIs of all images.
        offsets: (M, 2, h, w), along x and y for each bin, in widths and heights of the RoI.
        spatial_scale: pixels of the feature map per pixel of the image.
        sampling_ratio: samples per bin and axis; 0 takes as many as a bin has pixels, rounded up.
        aligned: whether the centre of the first pixel is at 0.5, or at 0 with RoIs of at least one pixel (RoIAlign's ``aligned``).

    Returns:
        (M, C, h, w), with the dtype of the features.
    """
    channels, height, width = features.shape[1:]
    bins_y, bins_x = offsets.shape[2:]
    bins = bins_y * bins_x
    dtype = torch.promote_types(features.dtype, torch.float32)
    corners = rois[:, 1:].detach().to(dtype) * spatial_scale - 0.5 * aligned
    start = corners[:, :2]
    size = corners[:, 2:] - start if aligned else (corners[:, 2:] - start).clamp(min=1)
    bin_size = size / size.new_tensor([bins_x, bins_y])
    samples = (
        bin_size.ceil().long().clamp(min=0) if sampling_ratio == 0 else torch.full_like(bin_size, sampling_ratio).long()
    )

    bin_of_sample, position, starts = segments(samples.prod(1).repeat_interleave(bins, output_size=len(rois) * bins))
    roi = bin_of_sample // bins
    bin_index = torch.stack([bin_of_sample % bins_x, bin_of_sample % bins // bins_x], dim=1)
    samples_of_roi = samples[roi]
    sample_index = torch.stack([position % samples_of_roi[:, 0], position // samples_of_roi[:, 0]], dim=1)
    # index_select, because the backward pass of plain indexing sorts.
    shift = (
        (offsets.to(dtype) * size[:, :, None, None]).permute(0, 2, 3, 1).reshape(-1, 2).index_select(0, bin_of_sample)
    )
    size_of_bin = bin_size[roi]
    # In the order of RoIAlign: far from the origin, another order rounds differently.
    points = start[roi] + bin_index * size_of_bin + (sample_index + 0.5) * size_of_bin / samples_of_roi + shift

    rows, weights = bilinear_taps(
        rois[:, 0].long()[roi], points[:, 1], points[:, 0], height=height, width=width, margin=1
    )
    weights = weights / samples_of_roi.prod(1)[:, None]
    pooled = sum_taps(features, rows.flatten(), weights.flatten(), starts * rows.shape[1])
    return pooled.view(-1, bins_y, bins_x, channels).permute(0, 3, 1, 2)
