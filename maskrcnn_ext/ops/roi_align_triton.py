"""RoIAlign over a feature pyramid on CUDA, in Triton: one launch for all levels, forward and backward."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskrcnn_ext.ops.roi_align_reference import LARGEST, SampleGrid


@triton.jit
def _sample(start, bin_size, bins, samples, skipped, index, size):
    """Returns, for one sample of each bin along one axis, its two pixels, the weight of the second, and whether it is within the map."""
    number = skipped + index
    at = start + bins * bin_size + (number + 0.5) * bin_size / samples
    inside = (number < samples) & (at >= -1.0) & (at <= size)
    at = tl.where(inside, tl.maximum(at, 0.0), 0.0)
    lower = tl.minimum(at.to(tl.int32), size - 1)
    upper = tl.minimum(lower + 1, size - 1)
    return lower, upper, tl.where(lower < upper, at - lower, 0.0), inside


@triton.jit
def _axis(low, high, valid, bins, count: tl.constexpr, sampling_ratio: tl.constexpr, aligned: tl.constexpr, size):
    """Returns the size of a bin, its number of samples, how many samples before the map are skipped, and how many remain."""
    extent = high - low
    if not aligned:
        extent = tl.maximum(extent, 1.0)
    bin_size = extent / count
    if sampling_ratio > 0:
        samples, skipped = sampling_ratio + 0.0 * low, 0.0 * bins
        left = samples
    else:
        samples = tl.maximum(tl.ceil(bin_size), 0.0)
        # Several samples are at least half a pixel apart, so that only few samples of a huge box are within the map.
        step = bin_size / tl.maximum(samples, 1.0)
        before = tl.floor((-1.0 - low - bins * bin_size) / tl.where(step > 0, step, 1.0)) - 8
        skipped = tl.minimum(tl.maximum(before, 0.0), samples)
        left = tl.minimum(samples, 2.0 * size + 32)
    return bin_size, samples, skipped, tl.where(valid, left, 0.0).to(tl.int32)


@triton.jit(do_not_specialize=["num_images"])
def _kernel(
    pooled,
    rois,
    level_of,
    data,
    heights,
    widths,
    scales,
    strides,
    pooled_strides,
    num_images,
    channels,
    rows: tl.constexpr,
    columns: tl.constexpr,
    sampling_ratio: tl.constexpr,
    aligned: tl.constexpr,
    largest: tl.constexpr,
    backward: tl.constexpr,
    num_levels: tl.constexpr,
    channels_last: tl.constexpr,
    block_bins: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Pools a block of bins and channels of one RoI; in the backward pass, adds its gradient to the gradients of the features."""
    roi = tl.program_id(0).to(tl.int64)
    bins = tl.program_id(1) * block_bins + tl.arange(0, block_bins)
    channel = (tl.program_id(2) * block_channels + tl.arange(0, block_channels)).to(tl.int64)[None, :]
    block = (bins < rows * columns)[:, None] & (channel < channels)

    level = tl.load(level_of + roi)
    base, height, width, scale = data[0], heights[0] >> 1, widths[0] >> 1, scales[0]
    by_image, by_channel, by_row, by_column = strides[0]
    for index in tl.static_range(1, num_levels):
        here = level == index
        base = tl.where(here, data[index], base)
        height, width = tl.where(here, heights[index] >> 1, height), tl.where(here, widths[index] >> 1, width)
        scale = tl.where(here, scales[index], scale)
        by_image, by_channel = (
            tl.where(here, strides[index][0], by_image),
            tl.where(here, strides[index][1], by_channel),
        )
        by_row, by_column = tl.where(here, strides[index][2], by_row), tl.where(here, strides[index][3], by_column)
    if not channels_last:
        by_image, by_channel, by_row, by_column = by_image >> 1, by_channel >> 1, by_row >> 1, 1

    image = tl.load(rois + 5 * roi)
    x0, y0 = tl.load(rois + 5 * roi + 1), tl.load(rois + 5 * roi + 2)
    x1, y1 = tl.load(rois + 5 * roi + 3), tl.load(rois + 5 * roi + 4)
    # Written so that NaN is invalid.
    valid = (tl.abs(x0) < largest) & (tl.abs(y0) < largest) & (tl.abs(x1) < largest) & (tl.abs(y1) < largest)
    valid = valid & (level >= 0) & (level < num_levels) & (image >= 0) & (image < num_images)
    offset = 0.5 if aligned else 0.0
    x0, y0 = tl.where(valid, x0 * scale - offset, 0.0), tl.where(valid, y0 * scale - offset, 0.0)
    x1, y1 = tl.where(valid, x1 * scale - offset, 0.0), tl.where(valid, y1 * scale - offset, 0.0)
    bins_y, bins_x = bins // columns, bins % columns
    size_y, samples_y, skipped_y, left_y = _axis(y0, y1, valid, bins_y, rows, sampling_ratio, aligned, height)
    size_x, samples_x, skipped_x, left_x = _axis(x0, x1, valid, bins_x, columns, sampling_ratio, aligned, width)

    base += tl.where(valid, image, 0.0).to(tl.int64) * by_image
    by_roi, by_bin_channel, by_bin_y, by_bin_x = pooled_strides
    out = pooled + roi * by_roi + (bins_y * by_bin_y + bins_x * by_bin_x)[:, None] + channel * by_bin_channel
    total = tl.zeros((block_bins, block_channels), tl.float32)
    if backward:
        total = tl.load(out, mask=block, other=0.0).to(tl.float32) / tl.maximum(samples_y * samples_x, 1.0)

    for sample_y in range(left_y):
        top, bottom, low_y, inside_y = _sample(y0, size_y, bins_y, samples_y, skipped_y, sample_y, height)
        for sample_x in range(left_x):
            left, right, low_x, inside_x = _sample(x0, size_x, bins_x, samples_x, skipped_x, sample_x, width)
            mask = block & (inside_y & inside_x)[:, None]
            for corner in tl.static_range(4):
                y, weight_y = (bottom, low_y) if corner // 2 else (top, 1 - low_y)
                x, weight_x = (right, low_x) if corner % 2 else (left, 1 - low_x)
                weight = (weight_y * weight_x)[:, None]
                pixel = base + (y.to(tl.int64) * by_row + x * by_column)[:, None] + channel * by_channel
                if backward:
                    tl.atomic_add(pixel, total * weight, mask=mask, sem="relaxed")
                else:
                    total += tl.load(pixel, mask=mask, other=0.0).to(tl.float32) * weight
    if not backward:
        total = total / tl.maximum(samples_y * samples_x, 1.0)
        tl.store(out, total.to(pooled.dtype.element_ty), mask=block)


def forward(features: Sequence[Tensor], grid: SampleGrid) -> Tensor:
    """Returns the pooled features (M, C, h, w)."""
    first = features[0]
    shape = (len(grid.rois), first.shape[1], *grid.output_size)
    pooled = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=grid.memory_format)
    _launch(features, pooled, grid, backward=False)
    return pooled


def backward(gradient: Tensor, sizes: Sequence[Sequence[int]], grid: SampleGrid) -> list[Tensor]:
    """Returns the gradients of the features, in float32, from that of the result; ``sizes`` are (N, H, W) of each level."""
    shapes = [(images, gradient.shape[1], height, width) for images, height, width in sizes]
    options: dict[str, Any] = {"device": gradient.device, "memory_format": grid.memory_format}
    gradients = [torch.empty(shape, **options).zero_() for shape in shapes]
    _launch(gradients, gradient, grid, backward=True)
    return gradients


def _launch(levels: Sequence[Tensor], pooled: Tensor, grid: SampleGrid, *, backward: bool) -> None:
    if not pooled.numel():
        return
    channels, (bins_y, bins_x) = pooled.shape[1], grid.output_size
    # Neighbours in a block are neighbours in memory: the channels of a pixel (four for each of the 32 threads of a warp, which loads and
    # adds them at once), or bins along a row.
    block_bins, block_channels = (4, 128) if grid.channels_last else (64, 4)
    blocks = (len(grid.rois), triton.cdiv(bins_y * bins_x, block_bins), triton.cdiv(channels, block_channels))
    with torch.cuda.device_of(pooled):
        _kernel[blocks](
            pooled,
            grid.rois.to(torch.float32).contiguous(),
            grid.levels.contiguous(),
            tuple(levels),
            _odd([level.shape[2] for level in levels]),
            _odd([level.shape[3] for level in levels]),
            tuple(grid.scales),
            tuple(level.stride() if grid.channels_last else _odd(level.stride()) for level in levels),
            pooled.stride(),
            len(levels[0]),
            channels,
            bins_y,
            bins_x,
            grid.sampling_ratio,
            grid.aligned,
            LARGEST,
            backward,
            len(levels),
            grid.channels_last,
            block_bins,
            block_channels,
        )


def _odd(numbers: Sequence[int]) -> tuple[int, ...]:
    """Returns 2 n + 1: Triton compiles again when the set of arguments divisible by 16 changes, hence for images of other sizes."""
    return tuple(2 * number + 1 for number in numbers)
