"""Depthwise convolutions for training on the CPU: PyTorch's forward pass, and a compiled backward pass (``csrc/depthwise.cpp``)."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from maskrcnn_ext.ops.native import function

DTYPES = (torch.float32, torch.bfloat16)
_KERNELS = (3, 5, 7)
# Channels per vector of the compiled code.
_LANES = 16
_FILE = Path(__file__).with_name("_depthwise.so")


class _Sizes(ctypes.Structure):
    """``Sizes`` of the C++ source."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("number", "channels", "height", "width", "out_height", "out_width", "kernel", "stride"),
            *("padding_y", "padding_x", "is_bfloat16", "threads"),
        )
    )


@functools.cache
def library() -> tuple[Any, Any]:
    """Returns the compiled gradients of the input and of the weights.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    functions = function(_FILE, "depthwise_input_gradient_1"), function(_FILE, "depthwise_weight_gradient_1")
    for compiled in functions:
        compiled.argtypes, compiled.restype = [ctypes.c_void_p] * 3 + [ctypes.POINTER(_Sizes)], None
    return functions


def fits(weight: Tensor, groups: int, stride: int) -> bool:
    """Whether :func:`depthwise_conv2d` supports weights (C, 1, k, k) and is faster for them than PyTorch.

    PyTorch's kernels are as fast for 3 x 3 pixels with stride 1.
    """
    channels, per_group, *kernel = weight.shape
    is_depthwise = per_group == 1 and channels == groups and channels % _LANES == 0
    return is_depthwise and kernel in [[k, k] for k in _KERNELS] and (kernel[0] > _KERNELS[0] or stride > 1)


def supports(x: Tensor) -> bool:
    """Whether :func:`depthwise_conv2d` supports an input: float32 or bfloat16, channels-last, on the CPU."""
    return x.device.type == "cpu" and x.dtype in DTYPES and x.is_contiguous(memory_format=torch.channels_last)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]) -> Tensor:
    """Computes a depthwise convolution; differentiable once.

    Args:
        x: (N, C, H, W) as :func:`supports` describes; C is a multiple of 16.
        weight: (C, 1, k, k) in the dtype of `x`; k is 3, 5 or 7.
        bias: (C,) or None.
        stride: of both axes.
        padding: zeros at the top and bottom, and at the left and right.

    Returns:
        (N, C, h, w), channels-last.

    Raises:
        OSError: the compiled library is missing.

    Example::

        y = depthwise_conv2d(x.contiguous(memory_format=torch.channels_last), weight, None, stride=2, padding=(1, 1))
    """
    convolved: Tensor = _Depthwise.apply(x, weight, bias, stride, padding)
    return convolved


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        channels, _, kernel, _ = weight.shape
        sizes = _Sizes(
            *(len(x), channels, *x.shape[2:], *gradient.shape[2:], kernel, ctx.stride),
            *(*ctx.padding, x.dtype == torch.bfloat16, torch.get_num_threads()),
        )
        of_input, of_weight = library()
        x_gradient = weight_gradient = None
        if needs_x:
            x_gradient = torch.empty_like(x)
            last = weight[:, 0].permute(1, 2, 0).float().contiguous()
            of_input(gradient.data_ptr(), last.data_ptr(), x_gradient.data_ptr(), ctypes.byref(sizes))
        if needs_weight:
            sums = torch.zeros(sizes.threads, kernel, kernel, channels)
            of_weight(x.data_ptr(), gradient.data_ptr(), sums.data_ptr(), ctypes.byref(sizes))
            weight_gradient = sums.sum(0).permute(2, 0, 1)[:, None].to(weight.dtype)
        return x_gradient, weight_gradient, gradient.sum((0, 2, 3)) if needs_bias else None, None, None
