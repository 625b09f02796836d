"""Group normalisation of channels-last maps on the CPU (``csrc/group_norm.cpp``): in place with the ReLU that follows, and for training.

Wu and He, "Group Normalization", arXiv:1803.08494. PyTorch's operator writes a new map, which a ReLU reads again, and its backward pass of
channels-last maps is many times slower than that of others.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskrcnn_ext.ops.native import function

DTYPES = (torch.float32, torch.bfloat16)
_FILE = Path(__file__).with_name("_group_norm.so")


class _GroupSizes(ctypes.Structure):
    """``Maps`` of the C++ source."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("number", "pixels", "channels", "groups", "relu", "threads"))


@functools.cache
def library() -> tuple[Any, Any]:
    """Returns the compiled normalisation and its gradients.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    forward, backward = function(_FILE, "group_norm_2"), function(_FILE, "group_norm_backward_2")
    pointer, sizes = ctypes.c_void_p, ctypes.POINTER(_GroupSizes)
    forward.argtypes = [pointer, pointer, ctypes.c_int64, pointer, pointer, ctypes.c_double, pointer, sizes]
    backward.argtypes = [pointer, pointer, pointer, ctypes.c_int64, pointer, pointer, pointer, sizes]
    forward.restype = backward.restype = None
    return forward, backward


def supports(x: Tensor) -> bool:
    """Whether an input is float32 or bfloat16, channels-last, on the CPU."""
    return x.device.type == "cpu" and x.dtype in DTYPES and x.is_contiguous(memory_format=torch.channels_last)


def group_norm_(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float, *, relu: bool = False) -> Tensor:
    """Normalises the groups of channels of each image, in place, with PyTorch's number of threads.

    Args:
        x: (N, C, H, W) as :func:`supports` describes. Statistics and sums are float32 or better.
        groups: number of groups.
        weight: (C,) float32.
        bias: (C,) float32.
        epsilon: added to the variance.
        relu: whether a ReLU follows.

    Returns:
        `x`

    Raises:
        OSError: the compiled library is missing.
        ValueError: tensors with other shapes, dtypes or layouts.
    """
    _check(x, groups, weight, bias)
    _normalise(x, x, groups, weight, bias, epsilon, relu=relu)
    return x


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalises the groups of channels of each image; differentiable once. Arguments and errors are those of :func:`group_norm_`.

    Returns:
        (N, C, H, W) in the dtype of `x`, channels-last.

    Example::

        y = group_norm(x.contiguous(memory_format=torch.channels_last), 32, norm.weight, norm.bias, norm.eps)
    """
    _check(x, groups, weight, bias)
    normalised: Tensor = _GroupNorm.apply(x, groups, weight, bias, epsilon)
    return normalised


def _check(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> None:
    channels = x.shape[1]
    if not supports(x):
        raise ValueError("the input must be channels-last, and float32 or bfloat16")
    if channels % groups or not all(
        value.shape == (channels,) and value.dtype == torch.float32 and value.is_contiguous()
        for value in (weight, bias)
    ):
        raise ValueError(f"{groups} groups, or weight and bias in {weight.dtype}, do not fit {channels} channels")


def _sizes(x: Tensor, groups: int, *, relu: bool) -> _GroupSizes:
    number, channels, height, width = x.shape
    return _GroupSizes(number, height * width, channels, groups, relu, torch.get_num_threads())


def _normalise(
    x: Tensor,
    y: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    *,
    relu: bool,
    statistics: Tensor | None = None,
) -> None:
    """Writes the normalised `x` to `y`, and mean and inverse deviation to `statistics`, (N, G, 2) float64."""
    if x.numel():
        library()[0](
            *(x.data_ptr(), y.data_ptr(), x.dtype == torch.bfloat16, weight.data_ptr(), bias.data_ptr(), epsilon),
            *(None if statistics is None else statistics.data_ptr(), _sizes(x, groups, relu=relu)),
        )


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        y = torch.empty_like(x)
        statistics = torch.empty(len(x), groups, 2, dtype=torch.float64)
        _normalise(x, y, groups, weight, bias, epsilon, relu=False, statistics=statistics)
        ctx.save_for_backward(x, weight, statistics)
        ctx.groups = groups
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        x, weight, statistics = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        of_x = torch.empty_like(x)
        of_parameters = torch.zeros(len(x), 2, x.shape[1], dtype=torch.float64)
        if x.numel():
            library()[1](
                *(x.data_ptr(), gradient.data_ptr(), of_x.data_ptr(), x.dtype == torch.bfloat16, weight.data_ptr()),
                *(statistics.data_ptr(), of_parameters.data_ptr(), _sizes(x, ctx.groups, relu=False)),
            )
        of_weight, of_bias = of_parameters.sum(0).to(weight.dtype)
        return of_x, None, of_weight, of_bias, None
