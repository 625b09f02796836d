"""RoIAlign over a feature pyramid in plain PyTorch: any device, any floating-point dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn_ext.ops.taps import segments, sum_taps

# Beyond it, float32 does not represent every pixel: such RoIs, like those with NaN, pool to zeros.
LARGEST = 2.0**24


class _AxisTaps(NamedTuple):
    """Taps of all bins along one axis, in the order of the bins."""

    pixels: Tensor
    weights: Tensor
    starts: Tensor
    counts: Tensor


class _Taps(NamedTuple):
    """Taps of all bins: the row of a pixel in the table of the pixels of all levels, its weight, and its bin."""

    rows: Tensor
    weights: Tensor
    bins: Tensor
    starts: Tensor


class SampleGrid(NamedTuple):
    """Positions of the samples of M RoIs: the arguments of :func:`maskrcnn_ext.ops.roi_align.roi_align`."""

    rois: Tensor
    levels: Tensor
    scales: Sequence[float]
    output_size: tuple[int, int]
    sampling_ratio: int
    aligned: bool
    channels_last: bool  # memory format of results

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of results."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def forward(features: Sequence[Tensor], grid: SampleGrid) -> Tensor:
    """Returns the pooled features (M, C, h, w), in any memory format."""
    channels = features[0].shape[1]
    sizes = [(len(level), *level.shape[2:]) for level in features]
    taps = _taps(sizes, grid, torch.promote_types(features[0].dtype, torch.float32))
    table = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in features])
    sums = _sum(table, taps.rows, taps.weights, taps.starts)
    return sums.view(len(grid.rois), *grid.output_size, channels).permute(0, 3, 1, 2)


def backward(gradient: Tensor, sizes: Sequence[Sequence[int]], grid: SampleGrid) -> list[Tensor]:
    """Returns the gradients of the features from that of the result; ``sizes`` are (N, H, W) of each level."""
    channels = gradient.shape[1]
    taps = _taps(sizes, grid, torch.promote_types(gradient.dtype, torch.float32))
    # The same sums as in the forward pass, with pixels and bins exchanged.
    pixels = [n * h * w for n, h, w in sizes]
    order = taps.rows.argsort()
    counts = taps.rows.bincount(minlength=sum(pixels))
    table = gradient.permute(0, 2, 3, 1).flatten(0, 2)
    sums = _sum(table, taps.bins[order], taps.weights[order], counts.cumsum(0) - counts)
    levels = zip(sums.split(pixels), sizes, strict=True)
    # The results of an operator must not share memory.
    return [level.view(*size, channels).permute(0, 3, 1, 2).clone() for level, size in levels]


def _sum(table: Tensor, rows: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    return sum_taps(table.t()[None, :, :, None], rows, weights, starts)


def _taps(sizes: Sequence[Sequence[int]], grid: SampleGrid, dtype: torch.dtype) -> _Taps:
    rois, (bins_y, bins_x), offset = grid.rois.to(dtype), grid.output_size, 0.5 * grid.aligned
    level = grid.levels.clamp(0, len(sizes) - 1)
    table = torch.tensor(sizes, device=rois.device)
    num_images, heights, widths = table[level].unbind(1)
    first_rows = table.prod(dim=1).cumsum(0) - table.prod(dim=1)

    image = rois[:, 0]
    valid = (rois[:, 1:].abs() < LARGEST).all(dim=1) & (level == grid.levels) & (image >= 0) & (image < num_images)
    image, *corners = torch.where(valid[:, None], rois, 0).unbind(1)
    scale = rois.new_tensor(grid.scales)[level]
    x0, y0, x1, y1 = (corner * scale - offset for corner in corners)
    along_y = _axis_taps(y0, y1, heights, valid, bins_y, grid.sampling_ratio, grid.aligned)
    along_x = _axis_taps(x0, x1, widths, valid, bins_x, grid.sampling_ratio, grid.aligned)

    counts = along_y.counts.view(-1, bins_y, 1) * along_x.counts.view(-1, 1, bins_x)
    bins, position, starts = segments(counts.flatten())
    roi = bins // (bins_y * bins_x)
    bin_y = bins // bins_x
    bin_x = roi * bins_x + bins % bins_x
    tap_y = along_y.starts[bin_y] + position // along_x.counts[bin_x]
    tap_x = along_x.starts[bin_x] + position % along_x.counts[bin_x]
    rows = (image.long() * heights)[roi] + along_y.pixels[tap_y]
    rows = first_rows[level][roi] + rows * widths[roi] + along_x.pixels[tap_x]
    return _Taps(rows, along_y.weights[tap_y] * along_x.weights[tap_x], bins, starts)


def _axis_taps(
    low: Tensor, high: Tensor, lengths: Tensor, valid: Tensor, bins: int, sampling_ratio: int, aligned: bool
) -> _AxisTaps:
    """Returns the taps of each bin along one axis: the averaged bilinear weights of its samples.

    Args:
        low: (M,) start of the RoIs in pixels; the centre of the first pixel is 0.
        high: (M,) end of the RoIs.
        lengths: (M,) int64, number of pixels.
        valid: (M,) bool; invalid RoIs have no taps.
        bins: number of bins of a RoI.
        sampling_ratio: samples per bin; 0 takes as many as a bin has pixels, rounded up.
        aligned: if not, RoIs are at least one pixel large.

    Returns:
        Pixels and weights with one entry per tap, first tap and number of taps with one entry per bin (M * bins).
    """
    extent = high - low if aligned else (high - low).clamp(min=1)
    bin_size = extent / bins
    samples = torch.full_like(bin_size, sampling_ratio) if sampling_ratio else bin_size.ceil().clamp(min=0)
    samples = samples * valid
    bin_of = torch.arange(bins, dtype=low.dtype, device=low.device)
    base = low[:, None] + bin_of * bin_size[:, None]

    # Most samples of a huge box are outside the map and are skipped.
    step = (bin_size / samples.clamp(min=1))[:, None].double()
    far = torch.where(step > 0, step, 1)
    last = samples[:, None].double()
    skipped = torch.where(step > 0, ((-1 - base) / far).floor() - 2, 0).clamp(min=0).minimum(last)
    ended = torch.where(step > 0, ((lengths[:, None] - base) / far).ceil() + 2, last).clamp(min=0).minimum(last)
    bin_index, position, _ = segments((ended - skipped).clamp(min=0).long().flatten())

    roi = bin_index // bins
    sample = position + skipped.flatten()[bin_index].to(low.dtype)
    at = base.flatten()[bin_index] + (sample + 0.5) * bin_size[roi] / samples[roi]
    size = lengths[roi]
    inside = (at >= -1) & (at <= size)
    bin_index, roi, at, size = bin_index[inside], roi[inside], at[inside].clamp(min=0), size[inside]
    lower = torch.minimum(at.long(), size - 1)
    upper = torch.minimum(lower + 1, size - 1)
    fraction = torch.where(lower < upper, at - lower, 0)

    # Samples in the same pixels share taps: a bin has one tap for each pixel from its first to its last.
    first = torch.zeros_like(base, dtype=torch.long).flatten()
    final = first - 1
    first.scatter_reduce_(0, bin_index, lower, "amin", include_self=False)
    final.scatter_reduce_(0, bin_index, upper, "amax", include_self=False)
    counts = final - first + 1
    bin_of_tap, position, starts = segments(counts)
    weights = low.new_zeros(len(bin_of_tap))
    slot = starts[bin_index] - first[bin_index]
    weights.index_add_(0, slot + lower, (1 - fraction) / samples[roi])
    weights.index_add_(0, slot + upper, fraction / samples[roi])
    return _AxisTaps(first[bin_of_tap] + position, weights, starts, counts)
