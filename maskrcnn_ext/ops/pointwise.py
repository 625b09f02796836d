"""Convolutions on the CPU that are one matrix product (GEMM): 1 x 1 kernels, and transposed 2 x 2 kernels with stride 2.

PyTorch computes the product into reused memory. Bias, residual and ReLU follow in blocks, while a block is in the cache
(``csrc/pointwise.cpp``).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from maskrcnn_ext.ops.native import function
from maskrcnn_ext.ops.predictors import PixelRange, select_logits
from maskrcnn_ext.ops.workspace import Workspace

# Values of the product per block.
_PIECE = 1 << 20
_FILE = Path(__file__).with_name("_pointwise.so")


@functools.cache
def library() -> tuple[Callable[..., None], Callable[..., None]]:
    """Returns the compiled functions for a convolution and for a transposed convolution.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    rows, pointer = ctypes.POINTER(PixelRange), ctypes.c_void_p
    finish, spread = function(_FILE, "pointwise_finish_1"), function(_FILE, "pointwise_spread_1")
    finish.argtypes, finish.restype = [pointer, pointer, pointer, rows, ctypes.c_int64], None
    spread.argtypes, spread.restype = [pointer, pointer, pointer, rows], None
    return finish, spread


def pointwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    workspace: Workspace,
    *,
    stride: int = 1,
    relu: bool = False,
    residual: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """Computes a convolution with 1 x 1 kernels, with PyTorch's number of threads.

    Args:
        x: (N, I, H, W) float32, channels-last, on the CPU.
        weight: (I, O) float32.
        bias: (O,) float32.
        workspace: allocates temporary memory and the result.
        stride: along both axes.
        relu: whether a ReLU follows.
        residual: added to the result: (N, O, H', W'), or (N, O, H' / 2, W' / 2), which is upsampled by nearest neighbour.
        overwrite: whether the result is written into a residual of its size.

    Returns:
        (N, O, H', W'), channels-last.

    Raises:
        OSError: the compiled library is missing.
        ValueError: tensors with other shapes, dtypes or layouts.
    """
    finish, _ = library()
    if stride > 1:
        strided = x[:, :, ::stride, ::stride]
        x = workspace.channels_last(*strided.shape).copy_(strided)
    number, _, height, width = x.shape
    channels = weight.shape[1]
    half = residual is not None and residual.shape[2:] != x.shape[2:]
    fits = (number, channels, height // 2, width // 2) if half else (number, channels, height, width)
    if residual is not None and (residual.shape != fits or (half and (height % 2 or width % 2))):
        raise ValueError(f"the residual {tuple(residual.shape)} does not fit {(number, channels, height, width)}")
    _check(x, weight.shape[0], bias, channels, *(() if residual is None else (residual,)))
    if residual is not None and overwrite and not half:
        result, residual, beta = residual, None, 1
    else:
        result, beta = workspace.channels_last(number, channels, height, width), 0
    inputs, outputs = (value.permute(0, 2, 3, 1).flatten(0, 2) for value in (x, result))
    for rows in _row_blocks(x, channels, channels, relu=relu):
        own = slice(rows.first, rows.first + rows.count)
        outputs[own].addmm_(inputs[own], weight, beta=beta)
        finish(
            result.data_ptr(),
            bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            ctypes.byref(rows),
            half,
        )
    return result


def upsampling_weight(weight: Tensor) -> Tensor:
    """Returns the weights (I, O, 2, 2) of a transposed convolution in the layout of :func:`upsampling_conv2d`, (I, 4 * O)."""
    return weight.permute(0, 2, 3, 1).flatten(1).contiguous()


def upsampling_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    workspace: Workspace,
    *,
    relu: bool = False,
    then: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Computes a transposed convolution with 2 x 2 kernels and stride 2, with PyTorch's number of threads.

    Args:
        x: (N, I, H, W) float32, channels-last, on the CPU; also bfloat16 with `then`.
        weight: from :func:`upsampling_weight`, with the dtype of `x`.
        bias: (O,) float32.
        workspace: allocates temporary memory and the result.
        relu: whether a ReLU follows.
        then: weights (N, O) and bias (N,) in float32 of a following 1 x 1 convolution to one channel, one for each image. The tensor
            between both is never materialised.

    Returns:
        (N, O or 1, 2 H, 2 W), channels-last, float32.

    Raises:
        OSError: the compiled library is missing.
        ValueError: tensors with other shapes, dtypes or layouts.
    """
    number, _, height, width = x.shape
    channels = weight.shape[1] // 4
    _check(x, weight.shape[0], bias, channels, dtype=weight.dtype)
    inputs = x.permute(0, 2, 3, 1).flatten(0, 2)
    blocks = _row_blocks(x, channels, 4 * channels, relu=relu)
    count = max((rows.count for rows in blocks), default=0)
    memory = workspace.empty(count, 4 * channels, dtype=weight.dtype)
    result = workspace.channels_last(number, channels if then is None else 1, 2 * height, 2 * width)
    for rows in blocks:
        products = memory[: rows.count]
        torch.mm(inputs[rows.first : rows.first + rows.count], weight, out=products)
        if then is None:
            _, spread = library()
            spread(products.data_ptr(), bias.data_ptr(), result.data_ptr(), ctypes.byref(rows))
        else:
            select_logits(products, bias, *then, result[:, 0], relu=relu, first=rows.first)
    return result


def _check(
    x: Tensor, inputs: int, bias: Tensor, outputs: int, *others: Tensor, dtype: torch.dtype = torch.float32
) -> None:
    if x.shape[1] != inputs or bias.shape != (outputs,):
        raise ValueError(
            f"weights from {inputs} to {outputs} channels do not fit {x.shape[1]}, or a bias {tuple(bias.shape)}"
        )
    if bias.dtype != torch.float32 or not all(
        value.dtype == dtype and value.is_contiguous(memory_format=torch.channels_last) for value in (x, *others)
    ):
        raise ValueError(f"the input must be channels-last and {dtype}, and the bias float32")


def _row_blocks(x: Tensor, channels: int, values: int, *, relu: bool) -> list[PixelRange]:
    """Returns blocks of the pixels of an input; each pixel contributes `values` values to a block."""
    number, _, height, width = x.shape
    total = number * height * width
    # Blocks of equal size: a small last block would leave threads idle.
    count = max(1, round(total * values / _PIECE))
    ends = [total * index // count for index in range(count + 1)]
    threads = torch.get_num_threads()
    return [
        PixelRange(first, end - first, channels, height, width, relu, threads)
        for first, end in pairwise(ends)
        if end > first
    ]
