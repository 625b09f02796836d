"""Group normalisation in place on the CPU, with the ReLU that follows (``csrc/group_norm.cpp``).

Wu and He, "Group Normalization", arXiv:1803.08494. PyTorch's operator writes a new map, and a ReLU reads it again.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from maskrcnn_ext.ops.native import function

_FILE = Path(__file__).with_name("_group_norm.so")


class _GroupSizes(ctypes.Structure):
    """``Maps`` of the C++ source."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("number", "pixels", "channels", "groups", "relu", "threads"))


@functools.cache
def library() -> Callable[..., None]:
    """Returns the compiled function.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    compiled: Callable[..., None] = function(_FILE, "group_norm_1")
    pointer = ctypes.c_void_p
    compiled.argtypes = [pointer, ctypes.c_int64, pointer, pointer, ctypes.c_double, ctypes.POINTER(_GroupSizes)]  # type: ignore[attr-defined]
    compiled.restype = None  # type: ignore[attr-defined]
    return compiled


def group_norm_(x: Tensor, groups: int, weight: Tensor, bias: Tensor, epsilon: float, *, relu: bool = False) -> Tensor:
    """Normalises the groups of channels of each image, in place, with PyTorch's number of threads.

    Args:
        x: (N, C, H, W) float32 or bfloat16, channels-last, on the CPU. Statistics and sums are float32 or better.
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
    number, channels, height, width = x.shape
    if x.dtype not in (torch.float32, torch.bfloat16) or not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("the input must be channels-last, and float32 or bfloat16")
    if channels % groups or not all(
        value.shape == (channels,) and value.dtype == torch.float32 and value.is_contiguous()
        for value in (weight, bias)
    ):
        raise ValueError(f"{groups} groups, or weight and bias in {weight.dtype}, do not fit {channels} channels")
    if x.numel():
        maps = _GroupSizes(number, height * width, channels, groups, relu, torch.get_num_threads())
        is_bf16 = x.dtype == torch.bfloat16
        library()(x.data_ptr(), is_bf16, weight.data_ptr(), bias.data_ptr(), epsilon, ctypes.byref(maps))
    return x
