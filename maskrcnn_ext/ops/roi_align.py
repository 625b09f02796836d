"""RoIAlign (arXiv:1703.06870, section 3) over a feature pyramid in one call: compiled for CPUs, in Triton for CUDA, else in PyTorch.

Forward and backward pass are registered as operators of torch, so that torch.compile and torch.export support them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops import roi_align_cpu, roi_align_reference
from maskrcnn_ext.ops.native import loads, triton_unavailable_reason
from maskrcnn_ext.ops.roi_align_reference import SampleGrid
from maskrcnn_ext.ops.self_check import SelfChecks

_checks = SelfChecks()

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
    """Returns the average of bilinear samples in each bin of each RoI; each RoI has its level.

    A sample up to a pixel beyond the border takes the value of the border; farther out it is 0. A RoI pools to zeros if a corner is NaN or
    2**24 pixels or more from the origin, or if its level or image does not exist. Coordinates are float32, sums float32 or float64.
    Features receive gradients (first order only), RoIs do not. The host does not synchronise with the device.

    Args:
        features: L levels (N, C, H_l, W_l) of one floating-point dtype. N: images, C: channels. The result has the memory format of the
            first level; levels of the same format are not copied.
        rois: (M, 5): index of the image, then x0, y0, x1, y1 in pixels of the image. M: RoIs of all images.
        levels: (M,) int64, the level of each RoI.
        scales: pixels of the level per pixel of the image, for each level.
        output_size: bins along the height and the width, (h, w).
        sampling_ratio: samples per bin and axis; 0 takes as many as a bin has pixels, rounded up.
        aligned: whether the centre of the first pixel is at 0.5. If not, it is at 0, and RoIs are at least one pixel of the level large.

    Returns:
        (M, C, h, w), with the dtype and memory format of the features.

    Raises:
        ValueError: shapes, dtypes or devices do not match.
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
            f"on {first.device}, {rois.device} and {levels.device}: expected one scale per level, shapes (M, 5) and (M,), and one device"
        )
    channels_last = first.stride(1) == 1 and not first.is_contiguous()
    return _forward(
        list(features), rois, levels, list(scales), list(output_size), sampling_ratio, aligned, channels_last
    )


def _compiled(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Returns the module with the compiled kernel for this device and dtype, or None if it does not run here."""
    if dtype not in roi_align_cpu.DTYPES:
        return None
    if device.type == "cpu" and loads(roi_align_cpu.library):
        return roi_align_cpu
    if device.type == "cuda" and triton_unavailable_reason() is None:
        from maskrcnn_ext.ops import roi_align_triton

        return roi_align_triton
    return None


def _in_layout(level: Tensor, grid: SampleGrid) -> Tensor:
    # A crop of a larger map has suitable strides, too.
    fits = level.stride(1) == 1 if grid.channels_last else level.stride(3) == 1
    return level if fits else level.contiguous(memory_format=grid.memory_format)


@torch.library.custom_op("maskrcnn_ext::roi_align", mutates_args=(), schema=f"(Tensor[] features, {_GRID}) -> Tensor")
def _forward(features: list[Tensor], *arguments: Any) -> Tensor:
    grid = SampleGrid(*arguments)
    module = _compiled(features[0].device, features[0].dtype)

    def kernel() -> list[Tensor]:
        assert module is not None
        return [module.forward([_in_layout(level, grid) for level in features], grid)]

    def plain() -> list[Tensor]:
        return [roi_align_reference.forward(features, grid).contiguous(memory_format=grid.memory_format)]

    (pooled,) = _run("RoIAlign", module, kernel, plain, grid, features[0].dtype)
    return pooled


@torch.library.custom_op(
    "maskrcnn_ext::roi_align_backward",
    mutates_args=(),
    schema=f"(Tensor gradient, SymInt[] sizes, {_GRID}) -> Tensor[]",
)
def _backward(gradient: Tensor, sizes: list[int], *arguments: Any) -> list[Tensor]:
    grid = SampleGrid(*arguments)
    module = _compiled(gradient.device, gradient.dtype)
    if gradient.is_cuda and torch.are_deterministic_algorithms_enabled():
        module = None  # the order of additions in Triton's kernel varies

    def kernel() -> list[Tensor]:
        assert module is not None
        gradients: list[Tensor] = module.backward(gradient, _triples(sizes), grid)
        return gradients

    def plain() -> list[Tensor]:
        return roi_align_reference.backward(gradient, _triples(sizes), grid)

    gradients = _run("RoIAlign's backward pass", module, kernel, plain, grid, gradient.dtype)
    return [level.to(gradient.dtype).contiguous(memory_format=grid.memory_format) for level in gradients]


def _run(
    name: str,
    module: ModuleType | None,
    kernel: Callable[[], list[Tensor]],
    plain: Callable[[], list[Tensor]],
    grid: SampleGrid,
    dtype: torch.dtype,
) -> Sequence[Tensor]:
    """Computes a pass by the kernel of a module, or by plain operators. Kernels other than the CPU's are checked."""
    if module is None:
        return plain()
    if module is roi_align_cpu:
        return kernel()
    variant = dtype, grid.channels_last, *grid.output_size, grid.sampling_ratio, grid.aligned, len(grid.scales)
    return _checks.run(name, kernel, plain, variant=variant, is_real=len(grid.rois) > 0)


def _triples(sizes: Sequence[int]) -> list[Sequence[int]]:
    return [sizes[i : i + 3] for i in range(0, len(sizes), 3)]


@_forward.register_fake
def _(features: list[Tensor], *arguments: Any) -> Tensor:
    grid = SampleGrid(*arguments)
    shape = (grid.rois.shape[0], features[0].shape[1], *grid.output_size)
    return features[0].new_empty(shape).contiguous(memory_format=grid.memory_format)


@_backward.register_fake
def _(gradient: Tensor, sizes: list[int], *arguments: Any) -> list[Tensor]:
    memory_format = SampleGrid(*arguments).memory_format
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
