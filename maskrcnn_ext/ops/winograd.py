"""3 x 3 convolutions on the CPU with a quarter of the multiplications: Winograd's minimal filtering F(4 x 4, 3 x 3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308: 4 x 4 pixels of the output need 36 products for each
pair of channels instead of 144. Over all tiles, these are 36 matrix products (GEMMs), which PyTorch computes; the transforms to and from
them are compiled (``csrc/winograd.cpp``).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskrcnn_ext.ops.native import function
from maskrcnn_ext.ops.workspace import Workspace

# The transform of the weights for 4 x 4 tiles (section 4.1 of the paper).
_G = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_TILE = 4
# Tiles at a time: their transforms stay in the cache.
_TILES_AT_ONCE = 512
# Weights per pixel of the kernel: wider layers, which have few pixels, do not pay for four times the memory.
_MAX_WEIGHTS = 256 * 256
# Measured on a Zen 4: in bfloat16, products in float32 do not pay for fewer weights, nor if tiles cover many more pixels than the map has
# (14 x 14).
_MIN_BF16_WEIGHTS = 256 * 256
_MAX_BF16_COVER = 1.2
# Channels per vector of the compiled code.
_LANES = 16
_FILE = Path(__file__).with_name("_winograd.so")


class _Grid(ctypes.Structure):
    """``Grid`` of the C++ source."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("height", "width", "channels", "tiles_y", "tiles_x", "first_tile", "num_tiles", "threads")
    )


class _Library(NamedTuple):
    """The compiled transforms."""

    of_input: Callable[..., None]
    of_output: Callable[..., None]
    of_gradient: Callable[..., None]
    of_bf16_input: Callable[..., None]
    of_bf16_output: Callable[..., None]


@functools.cache
def library() -> _Library:
    """Returns the compiled transforms.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    grid, pointer = ctypes.POINTER(_Grid), ctypes.c_void_p
    arguments = {
        "winograd_input_1": [pointer, pointer, grid],
        "winograd_output_2": [pointer, pointer, pointer, pointer, grid, ctypes.c_int64],
        "winograd_gradient_1": [pointer, pointer, grid],
        "winograd_input_bf16_1": [pointer, pointer, grid],
        "winograd_output_bf16_1": [pointer, pointer, pointer, pointer, grid, ctypes.c_int64],
    }
    functions = []
    for name, types in arguments.items():
        functions.append(function(_FILE, name))
        functions[-1].argtypes, functions[-1].restype = types, None
    return _Library(*functions)


def transform_weight(weight: Tensor) -> Tensor:
    """Returns the transformed weights (36, I, O) of a convolution's weights (O, I, 3, 3), in their dtype."""
    outputs, inputs = weight.shape[:2]
    return (_kronecker(weight.dtype) @ weight.reshape(-1, 9).T).view(-1, outputs, inputs).transpose(1, 2)


def _kronecker(dtype: torch.dtype) -> Tensor:
    """Returns the transform of a kernel as one matrix, (36, 9)."""
    g = torch.tensor(_G, dtype=dtype)
    return torch.kron(g, g)


def fits(weight: Tensor) -> bool:
    """Whether :func:`winograd_conv2d` supports weights of this shape and is faster than a direct convolution in their dtype.

    For bfloat16, this is so on CPUs without AMX, and for maps of which :func:`fills_tiles` is true.
    """
    outputs, inputs, *kernel = weight.shape
    if kernel != [3, 3] or inputs % _LANES or outputs % _LANES:
        return False
    least = _MIN_BF16_WEIGHTS if weight.dtype == torch.bfloat16 else 0
    return min(inputs, outputs) >= 4 * _LANES and least <= inputs * outputs <= _MAX_WEIGHTS


def fills_tiles(x: Tensor) -> bool:
    """Whether tiles cover few more pixels than maps (N, C, H, W) have; else a direct convolution in bfloat16 is faster."""
    height, width = x.shape[2:]
    covered = -(-height // _TILE) * -(-width // _TILE) * _TILE**2
    return covered <= _MAX_BF16_COVER * height * width


def winograd_conv2d(
    x: Tensor,
    transformed: Tensor,
    bias: Tensor,
    workspace: Workspace,
    *,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Computes a convolution with 3 x 3 kernels, stride 1 and padding 1, with PyTorch's number of threads.

    The result differs from that of a direct convolution by about 1e-5 of the largest value: the transforms amplify rounding errors.

    Args:
        x: (N, C, H, W) float32 or bfloat16, channels-last, on the CPU. All sums are float32.
        transformed: weights from :func:`transform_weight`, float32, with numbers of channels that are multiples of 16.
        bias: (O,) float32.
        workspace: allocates temporary memory and the result.
        relu: whether a ReLU follows.
        residual: added to the result; same shape, dtype and layout.

    Returns:
        (N, O, H, W), channels-last, with the dtype of `x`.

    Raises:
        OSError: the compiled library is missing.
        ValueError: tensors with other shapes, dtypes or layouts.
    """
    number, channels, height, width = x.shape
    outputs = transformed.shape[2]
    if (channels % _LANES, outputs % _LANES, len(transformed), transformed.shape[1]) != (0, 0, len(_G) ** 2, channels):
        raise ValueError(
            f"weights {tuple(transformed.shape)} do not fit {channels} channels, or are no multiples of {_LANES}"
        )
    if residual is not None and residual.shape != (number, outputs, height, width):
        raise ValueError(f"the residual {tuple(residual.shape)} does not fit {(number, outputs, height, width)}")
    if (bias.shape, bias.dtype) != ((outputs,), torch.float32) or not all(
        value.dtype == x.dtype and value.is_contiguous(memory_format=torch.channels_last)
        for value in (x, *(() if residual is None else (residual,)))
    ):
        raise ValueError(
            f"the input must be channels-last, the residual likewise and of its dtype, and the bias ({outputs},) float32"
        )
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"the input must be float32 or bfloat16, not {x.dtype}")
    of_input, of_output, _, *of_bf16 = library()
    if x.dtype == torch.bfloat16:
        of_input, of_output = of_bf16
    result = workspace.channels_last(number, outputs, height, width, x.dtype)
    for grid, patches, products in _tile_groups(x.shape, (channels, outputs), workspace):
        of_input(x.data_ptr(), patches.data_ptr(), ctypes.byref(grid))
        torch.bmm(patches, transformed, out=products)
        grid.channels = outputs
        of_output(
            products.data_ptr(),
            bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            result.data_ptr(),
            ctypes.byref(grid),
            relu,
        )
    return result


def winograd_weight_gradient(x: Tensor, gradient: Tensor, workspace: Workspace) -> Tensor:
    """Returns the gradient of the weights of :func:`winograd_conv2d`.

    It is the adjoint: the gradient of the output is transformed by the transpose of the output transform.

    Args:
        x: input of the convolution, (N, I, H, W) float32, channels-last, on the CPU.
        gradient: gradient of its output, (N, O, H, W), likewise.
        workspace: allocates temporary memory.

    Returns:
        (O, I, 3, 3)

    Raises:
        OSError: the compiled library is missing.
    """
    inputs, outputs = x.shape[1], gradient.shape[1]
    sums = torch.zeros(len(_G) ** 2, outputs, inputs)
    for grid, patches, gradients in _tile_groups(x.shape, (inputs, outputs), workspace):
        library().of_input(x.data_ptr(), patches.data_ptr(), ctypes.byref(grid))
        grid.channels = outputs
        library().of_gradient(gradient.data_ptr(), gradients.data_ptr(), ctypes.byref(grid))
        sums.baddbmm_(gradients.transpose(1, 2), patches)
    return (_kronecker(sums.dtype).T @ sums.view(len(sums), -1)).view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


def _tile_groups(
    shape: torch.Size, depths: tuple[int, int], workspace: Workspace
) -> Iterator[tuple[_Grid, Tensor, Tensor]]:
    """Yields groups of tiles of images (N, C, H, W), with two matrices (36, tiles, depth) in memory that all groups share."""
    number, channels, height, width = shape
    tiles_y, tiles_x = -(-height // _TILE), -(-width // _TILE)
    total, matrices, threads = number * tiles_y * tiles_x, len(_G) ** 2, torch.get_num_threads()
    memory = [workspace.empty(matrices * min(total, _TILES_AT_ONCE) * depth) for depth in depths]
    for first in range(0, total, _TILES_AT_ONCE):
        count = min(_TILES_AT_ONCE, total - first)
        grid = _Grid(height, width, channels, tiles_y, tiles_x, first, count, threads)
        one, other = (
            part[: matrices * count * depth].view(matrices, count, depth)
            for part, depth in zip(memory, depths, strict=True)
        )
        yield grid, one, other


def winograd_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, workspace: Workspace) -> Tensor:
    """Computes a convolution with 3 x 3 kernels, stride 1 and padding 1; differentiable once.

    Args:
        x: (N, I, H, W) float32, on the CPU.
        weight: (O, I, 3, 3) float32; I and O are multiples of 16.
        bias: (O,) float32, or None.
        workspace: allocates temporary memory, the result and the gradient of `x`.

    Returns:
        (N, O, H, W), channels-last.

    Raises:
        OSError: the compiled library is missing.
        ValueError: tensors of other shapes or types.
    """
    convolved: Tensor = _Winograd.apply(x, weight, bias, workspace)
    return convolved


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, workspace: Workspace) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.workspace = workspace
        return winograd_conv2d(
            x, transform_weight(weight), weight.new_zeros(len(weight)) if bias is None else bias, workspace
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if needs_x:  # a convolution with the kernels rotated by 180 degrees, from outputs to inputs
            rotated = transform_weight(weight.flip(2, 3).transpose(0, 1))
            of_x = winograd_conv2d(gradient, rotated, weight.new_zeros(weight.shape[1]), ctx.workspace)
        if needs_weight:
            of_weight = winograd_weight_gradient(x, gradient, ctx.workspace)
        return of_x, of_weight, gradient.sum((0, 2, 3)) if needs_bias else None, None
