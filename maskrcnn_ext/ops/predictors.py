"""The last layers of the RPN and of the mask head on the CPU: few outputs from each pixel of a large map (``csrc/predictors.cpp``).

Inputs are float32 or bfloat16; sums and results are float32. The maps are read once, and not converted.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.ops.native import function

# `LANES` and `PIXELS` of the C++ source.
_LANES = 16
_PIXELS = 8
_FILE = Path(__file__).with_name("_predictors.so")
_DTYPES = (torch.float32, torch.bfloat16)


class PixelRange(ctypes.Structure):
    """``PixelRange`` of the C++ source, and ``Rows`` of pointwise.cpp, which has the same fields."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("first", "count", "channels", "height", "width", "relu", "threads")
    )


@functools.cache
def library() -> tuple[Callable[..., None], Callable[..., None]]:
    """Returns the compiled functions ``predict`` and ``select``.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    rows, pointer, number = ctypes.POINTER(PixelRange), ctypes.c_void_p, ctypes.c_int64
    predict, select = function(_FILE, "predict_1"), function(_FILE, "select_1")
    predict.argtypes, predict.restype = [pointer, number, pointer, pointer, pointer, number, rows], None
    select.argtypes, select.restype = [pointer, number, pointer, pointer, pointer, pointer, rows], None
    return predict, select


def pack_predictor(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Returns weight (O, C) and bias (O,) in the layout of :func:`predict_pixels`: (blocks, C, 16) and (blocks, 16), float32."""
    missing = -len(weight) % _LANES
    blocks = F.pad(weight.float(), (0, 0, 0, missing)).unflatten(0, (-1, _LANES))
    return blocks.transpose(1, 2).contiguous(), F.pad(bias.float(), (0, missing)).view(-1, _LANES).contiguous()


def predict_pixels(x: Tensor, packed: tuple[Tensor, Tensor], outputs: int) -> Tensor:
    """Computes a 1 x 1 convolution with few outputs.

    Args:
        x: (N, C, H, W), channels-last, float32 or bfloat16.
        packed: from :func:`pack_predictor`.
        outputs: number of channels of the result.

    Returns:
        (N, outputs, H, W) float32, channels-last.

    Raises:
        OSError: the compiled library is missing.
        ValueError: tensors with other shapes, dtypes or layouts.
    """
    weight, bias = packed
    if not 0 < outputs <= bias.numel():
        raise ValueError(f"{outputs} outputs do not fit weights for {bias.numel()}")
    _check(x, weight.shape[1])
    number, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).flatten(0, 2)
    count = len(pixels)
    if count < _PIXELS:
        pixels = F.pad(pixels, (0, 0, 0, _PIXELS - count)).contiguous()
    result = torch.empty(len(pixels), outputs)
    rows = PixelRange(0, len(pixels), channels, height, width, 0, torch.get_num_threads())
    predict, _ = library()
    predict(
        *(pixels.data_ptr(), x.dtype == torch.bfloat16, weight.data_ptr(), bias.data_ptr(), result.data_ptr()),
        *(outputs, ctypes.byref(rows)),
    )
    return result[:count].view(number, height, width, outputs).permute(0, 3, 1, 2)


def select_logits(
    products: Tensor,
    bias: Tensor,
    weights: Tensor,
    last: Tensor,
    logits: Tensor,
    *,
    relu: bool,
    first: int = 0,
) -> None:
    """Computes one logit for each pixel of an upsampled map: the last layer of a mask head, for one class of each image.

    Args:
        products: (P, 4 * C) float32 or bfloat16, contiguous: products of a transposed convolution with 2 x 2 kernels and stride 2, for P
            consecutive pixels of maps (N, H, W).
        bias: (C,) float32, of that convolution.
        weights: (N, C) float32, of the last layer.
        last: (N,) float32, bias of the last layer.
        logits: (N, 2 H, 2 W) float32, contiguous, which receives the result.
        relu: whether a ReLU is between the layers.
        first: number of the first pixel.

    Raises:
        OSError: the compiled library is missing.
        ValueError: tensors with other shapes, dtypes or layouts.
    """
    channels = len(bias)
    height, width = logits.shape[1] // 2, logits.shape[2] // 2
    floats = (bias, weights, last, logits)
    if products.dtype not in _DTYPES or any(value.dtype != torch.float32 for value in floats):
        raise ValueError("products must be float32 or bfloat16, and the others float32")
    if not all(value.is_contiguous() for value in (products, *floats)) or products.shape[1:] != (4 * channels,):
        raise ValueError(f"expected contiguous tensors and products (P, {4 * channels}), not {tuple(products.shape)}")
    if weights.shape != (len(logits), channels) or last.shape != (len(logits),):
        raise ValueError(f"weights {tuple(weights.shape)} do not fit {len(logits)} maps and {channels} channels")
    if not 0 <= first <= first + len(products) <= len(logits) * height * width:
        raise ValueError(f"pixels {first} to {first + len(products)} are not in {len(logits)} x {height} x {width}")
    rows = PixelRange(first, len(products), channels, height, width, relu, torch.get_num_threads())
    _, select = library()
    select(
        *(products.data_ptr(), products.dtype == torch.bfloat16, bias.data_ptr(), weights.data_ptr()),
        *(last.data_ptr(), logits.data_ptr(), ctypes.byref(rows)),
    )


def _check(x: Tensor, channels: int) -> None:
    if x.shape[1] != channels:
        raise ValueError(f"weights for {channels} channels do not fit {x.shape[1]}")
    if x.dtype not in _DTYPES or not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("the input must be channels-last, and float32 or bfloat16")
