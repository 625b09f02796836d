"""RoIAlign (arXiv:1703.06870, section 3) over a feature pyramid in one call: compiled for CPUs, in Triton for CUDA, else in PyTorch.

The two operators below are torch's: torch.compile and torch.export take them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops import roi_align_cpu, roi_align_reference
from maskrcnn_ext.ops.native import loads
from maskrcnn_ext.ops.roi_align_reference import Grid
from maskrcnn_ext.ops.triton_support import why_no_triton

if not hasattr(torch.library, "custom_op"):
    raise InputError(
        f"this RoIAlign needs torch 2.4 or newer, and {torch.__version__} is installed: use Detectron2's ROIPooler"
    )

_GRID = "Tensor rois, Tensor levels, float[] scales, SymInt[] output_size, int sampling_ratio, bool aligned, bool channels_last"


def roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    output_size: tuple[int, int],
    *,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Averages bilinear samples of every bin of every RoI, each RoI on its own level.

    A sample beyond the border is taken on it; more than a pixel beyond, it is 0. A RoI with a corner that is not a number or from 2**24
    pixels on, of a level or an image that there is not, pools to zeros. Coordinates are float32, sums float32 at least. Gradients
    reach the features, once (not twice), and not the RoIs. Nothing waits for the device.

    Args:
        features: L levels, (N, C, H, W) each with N images and C channels, of one floating-point dtype. channels_last or not, as the
            first is: the result is alike, and no level of that layout is copied.
        rois: (M, 5) with M RoIs of all images: the image's index, then x0, y0, x1, y1 in pixels of the image.
        levels: (M,) int64, the level of every RoI.
        scales: L times pixels of the level per pixel of the image.
        output_size: bins along the height and the width, (h, w).
        sampling_ratio: samples per bin and axis; 0 takes as many as a bin has pixels, rounded up.
        aligned: whether the centre of the first pixel is at 0.5, or at 0; then RoIs are at least one pixel of the level large.

    Returns:
        (M, C, h, w), of the features' dtype and layout.

    Raises:
        ValueError: for shapes, dtypes or devices that do not fit together.
    """
    first = features[0]
    if any((f.dtype, f.device, f.shape[:2]) != (first.dtype, first.device, first.shape[:2]) for f in features):
        raise ValueError("all levels must have the same dtype, device, number of images and channels")
    if (
        len(scales) != len(features)
        or rois.shape != (levels.shape[0], 5)
        or not rois.device == levels.device == first.device
    ):
        raise ValueError(
            f"{len(features)} levels, {len(scales)} scales, RoIs {tuple(rois.shape)} and their levels {tuple(levels.shape)} "
            f"on {first.device}, {rois.device} and {levels.device}: expected a scale a level, (M, 5), (M,), and one device"
        )
    channels_last = first.stride(1) == 1 and not first.is_contiguous()
    return _forward(
        list(features), rois, levels, list(scales), list(output_size), sampling_ratio, aligned, channels_last
    )


def _compiled(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Returns the module that is made for this device and dtype, if it runs here."""
    if dtype not in roi_align_cpu.DTYPES:
        return None
    if device.type == "cpu" and loads(roi_align_cpu.library):
        return roi_align_cpu
    if device.type == "cuda" and why_no_triton() is None:
        from maskrcnn_ext.ops import roi_align_triton

        return roi_align_triton
    return None


def _in_layout(level: Tensor, grid: Grid) -> Tensor:
    # A cut-out of a larger map has strides that serve as well.
    fits = level.stride(1) == 1 if grid.channels_last else level.stride(3) == 1
    return level if fits else level.contiguous(memory_format=grid.memory_format)


@torch.library.custom_op("maskrcnn_ext::roi_align", mutates_args=(), schema=f"(Tensor[] features, {_GRID}) -> Tensor")
def _forward(features: list[Tensor], *arguments: Any) -> Tensor:
    grid = Grid(*arguments)
    module = _compiled(features[0].device, features[0].dtype)
    if module:
        pooled: Tensor = module.forward([_in_layout(level, grid) for level in features], grid)
        return pooled
    return roi_align_reference.forward(features, grid).contiguous(memory_format=grid.memory_format)


@torch.library.custom_op(
    "maskrcnn_ext::roi_align_backward",
    mutates_args=(),
    schema=f"(Tensor gradient, SymInt[] sizes, {_GRID}) -> Tensor[]",
)
def _backward(gradient: Tensor, sizes: list[int], *arguments: Any) -> list[Tensor]:
    grid = Grid(*arguments)
    module = _compiled(gradient.device, gradient.dtype)
    if gradient.is_cuda and torch.are_deterministic_algorithms_enabled():
        module = None  # Triton's kernel adds up in the order in which threads come
    backward = (module or roi_align_reference).backward
    gradients = backward(gradient, _triples(sizes), grid)
    return [level.to(gradient.dtype).contiguous(memory_format=grid.memory_format) for level in gradients]


def _triples(sizes: Sequence[int]) -> list[Sequence[int]]:
    return [sizes[i : i + 3] for i in range(0, len(sizes), 3)]


@_forward.register_fake
def _(features: list[Tensor], *arguments: Any) -> Tensor:
    grid = Grid(*arguments)
    shape = (grid.rois.shape[0], features[0].shape[1], *grid.output_size)
    return features[0].new_empty(shape).contiguous(memory_format=grid.memory_format)


@_backward.register_fake
def _(gradient: Tensor, sizes: list[int], *arguments: Any) -> list[Tensor]:
    memory_format = Grid(*arguments).memory_format
    shapes = [(images, gradient.shape[1], height, width) for images, height, width in _triples(sizes)]
    return [gradient.new_empty(shape).contiguous(memory_format=memory_format) for shape in shapes]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    features, rois, levels, *ctx.others = inputs
    ctx.sizes = [size for level in features for size in (level.shape[0], *level.shape[2:])]
    ctx.save_for_backward(rois, levels)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    gradients = _backward(gradient, ctx.sizes, *ctx.saved_tensors, *ctx.others)
    return gradients, *(None,) * (2 + len(ctx.others))


_forward.register_autograd(_differentiate, setup_context=_setup_context)
