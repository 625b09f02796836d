"""Precise RoI pooling (PrRoIPool), section 3.2 of "Acquisition of Localization Confidence" (arXiv:1807.11590)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_ext.ops.taps import segments, sum_taps

# In pixels of the feature map. The result of narrower bins fades to 0, instead of dividing a rounding error by almost 0.
_NARROWEST_BIN = 1e-4


class _IntegralTaps(NamedTuple):
    """Taps of all bins along one axis, in the order of the bins; weights are integrals of the hat function."""

    pixels: Tensor
    weights: Tensor
    starts: Tensor
    counts: Tensor


def _hat_integral(lower: Tensor, upper: Tensor) -> Tensor:
    """Returns the integral of max(0, 1 - |t|) from ``lower`` to ``upper``.

    The trapezoidal rule is exact on both linear pieces, and close bounds cause no cancellation.
    """
    # A bound at 0 must move exactly one piece. The gradient of clamp at its limit differs between releases of torch.
    rise = [torch.where(bound <= 0, bound, 0).clamp(min=-1) for bound in (lower, upper)]
    fall = [torch.where(bound > 0, bound, 0).clamp(max=1) for bound in (lower, upper)]
    return (rise[1] - rise[0]) * (1 + (rise[0] + rise[1]) / 2) + (fall[1] - fall[0]) * (1 - (fall[0] + fall[1]) / 2)


def _axis_taps(start: Tensor, end: Tensor, bins: int, size: int) -> _IntegralTaps:
    """Returns the taps of each bin: the mean of each pixel's hat function over the bin.

    Args:
        start: (M,) start of the RoIs in pixels; the centre of the first pixel is 0.
        end: (M,) end of the RoIs.
        bins: number of bins of a RoI.
        size: number of pixels.

    Returns:
        Pixels and weights with one entry per tap, first tap and number of taps with one entry per bin (M * bins).
    """
    # Edges relative to the nearest pixel keep their precision, which float32 loses far from the origin.
    origin = start.detach().floor()
    steps = torch.linspace(0, 1, bins + 1, dtype=start.dtype, device=start.device)
    edges = (start - origin)[:, None] + (end - start).clamp(min=0)[:, None] * steps
    lower, upper = edges[:, :-1].flatten(), edges[:, 1:].flatten()
    origins = origin.long().repeat_interleave(bins, output_size=lower.numel())

    first = (lower.floor().long() + origins).clamp(min=0)
    last = (upper.ceil().long() + origins).clamp(max=size - 1)
    counts = (last - first + 1).clamp(0, size)
    bin_of_tap, position, starts = segments(counts)
    pixels = first[bin_of_tap] + position

    distance = pixels - origins[bin_of_tap]
    integral = _hat_integral(lower[bin_of_tap] - distance, upper[bin_of_tap] - distance)
    weights = integral / (upper - lower).clamp(min=_NARROWEST_BIN)[bin_of_tap]
    return _IntegralTaps(pixels, weights, starts, counts)


def precise_roi_pool(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, *, aligned: bool
) -> Tensor:
    """Returns the exact average of the bilinearly interpolated feature map over each bin: an integral, not samples (equation 4).

    The integral separates into one for each axis, whose integrand is a sum of hat functions. Therefore the result of a bin is a weighted
    sum of the pixels that it touches. Features outside the map, and bins without an area, are 0. It computes in float32 or float64.
    Features and RoIs receive gradients. On CUDA it synchronises three times, for the number of taps.

    Args:
        features: (N, C, H, W), floating point. N: images, C: channels.
        rois: (M, 5): index of the image, then x0, y0, x1, y1 in pixels of the image. M: RoIs of all images.
        output_size: bins along the height and the width, (h, w).
        spatial_scale: pixels of the feature map per pixel of the image.
        aligned: whether the centre of the first pixel is at 0.5 (RoIAlign's ``aligned``) or at 0.

    Returns:
        (M, C, h, w), with the dtype of the features.
    """
    channels, height, width = features.shape[1:]
    bins_y, bins_x = output_size
    images = rois[:, 0].long()
    corners = rois[:, 1:].to(torch.promote_types(features.dtype, torch.float32)) * spatial_scale - 0.5 * aligned
    x0, y0, x1, y1 = corners.unbind(1)
    along_y = _axis_taps(y0, y1, bins_y, height)
    along_x = _axis_taps(x0, x1, bins_x, width)

    counts = along_y.counts.view(-1, bins_y, 1) * along_x.counts.view(-1, 1, bins_x)
    bin_of_tap, position, starts = segments(counts.flatten())
    roi = bin_of_tap // (bins_y * bins_x)
    bin_y = bin_of_tap // bins_x
    bin_x = roi * bins_x + bin_of_tap % bins_x
    tap_y = along_y.starts[bin_y] + position // along_x.counts[bin_x]
    tap_x = along_x.starts[bin_x] + position % along_x.counts[bin_x]
    rows = (images[roi] * height + along_y.pixels[tap_y]) * width + along_x.pixels[tap_x]
    # index_select, because the backward pass of plain indexing sorts.
    weights = along_y.weights.index_select(0, tap_y) * along_x.weights.index_select(0, tap_x)
    return sum_taps(features, rows, weights, starts).view(-1, bins_y, bins_x, channels).permute(0, 3, 1, 2)
