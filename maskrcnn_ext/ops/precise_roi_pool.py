"""Precise RoI pooling (PrRoIPool), section 3.2 of "Acquisition of Localization Confidence" (arXiv:1807.11590)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_ext.ops.taps import segments, sum_taps

# Narrower bins fade to 0 instead of dividing a rounding error by next to nothing; in pixels of the feature map.
_NARROWEST_BIN = 1e-4


class _AxisTaps(NamedTuple):
    """The taps of all bins along one axis, bin after bin."""

    pixels: Tensor
    weights: Tensor
    starts: Tensor
    counts: Tensor


def _hat_integral(lower: Tensor, upper: Tensor) -> Tensor:
    """Integrates max(0, 1 - |t|) from ``lower`` to ``upper``.

    The trapezoidal rule is exact on either of its two straight pieces, and nothing cancels where the bounds are close.
    """
    # A bound on a pixel's centre, 0, moves one piece, not both or none: clamp's gradient there changed between releases of torch.
    rise = [torch.where(bound <= 0, bound, 0).clamp(min=-1) for bound in (lower, upper)]
    fall = [torch.where(bound > 0, bound, 0).clamp(max=1) for bound in (lower, upper)]
    return (rise[1] - rise[0]) * (1 + (rise[0] + rise[1]) / 2) + (fall[1] - fall[0]) * (1 - (fall[0] + fall[1]) / 2)


def _axis_taps(start: Tensor, end: Tensor, bins: int, size: int) -> _AxisTaps:
    """Averages the hat function of every pixel over every bin that it reaches.

    Args:
        start: (M,) where the RoIs begin, in pixels; the centre of the first pixel is 0.
        end: (M,) where they end.
        bins: how many bins share a RoI.
        size: number of pixels.

    Returns:
        Pixels and weights with one entry per tap, first tap and number of taps with one entry per bin (M * bins).
    """
    # Relative to a whole pixel close by, edges keep the precision that float32 loses far from the origin.
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
    return _AxisTaps(pixels, weights, starts, counts)


def precise_roi_pool(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, *, aligned: bool
) -> Tensor:
    """Averages the bilinearly interpolated feature map over every bin exactly: an integral, not samples (equation 4).

    The integral separates into one per axis, whose integrand is a sum of hat functions. So a bin is a weighted sum of the pixels
    that it touches. Outside the map features are 0, and so is a bin without an area. It computes in float32 at least. Gradients
    reach the features and the RoIs. On CUDA it waits for the device three times, for the number of taps.

    Args:
        features: (N, C, H, W) with N images and C channels, floating point.
        rois: (M, 5) with M RoIs of all images: the image's index, then x0, y0, x1, y1 in pixels of the image.
        output_size: bins along the height and the width, (h, w).
        spatial_scale: pixels of the feature map per pixel of the image.
        aligned: whether the centre of the first pixel is at 0.5 (RoIAlign's ``aligned``) or at 0.

    Returns:
        (M, C, h, w), of the features' dtype.
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
    # index_select adds up gradients where plain indexing would sort for them.
    weights = along_y.weights.index_select(0, tap_y) * along_x.weights.index_select(0, tap_x)
    return sum_taps(features, rows, weights, starts).view(-1, bins_y, bins_x, channels).permute(0, 3, 1, 2)
