"""3 x 3 convolutions on the CPU with a quarter of the multiplications: Winograd's minimal filtering F(4 x 4, 3 x 3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308: every 4 x 4 pixels of the output come from 36
products for each pair of channels instead of 144. The 36 products of all tiles are 36 products of matrices, which PyTorch computes; the
transforms to them and back are compiled (``csrc/winograd.cpp``).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from maskrcnn_ext.ops.native import function
from maskrcnn_ext.ops.workspace import Workspace

# Of the paper, section 4.1 for 4 x 4 tiles: the transform of the weights.
_G = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_TILE = 4
# Tiles at a time: what they are transformed to stays in the cache.
_TILES_AT_ONCE = 512
# Weights of one kernel's pixel: four times the memory is much for wider layers, which have few pixels.
_MAX_WEIGHTS = 256 * 256
# Channels that a vector of the compiled code holds.
_LANES = 16
_FILE = Path(__file__).with_name("_winograd.so")


class _Grid(ctypes.Structure):
    """``Grid`` of the C++ source."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("height", "width", "channels", "tiles_y", "tiles_x", "first_tile", "num_tiles", "threads")
    )


@functools.cache
def library() -> tuple[Callable[..., None], Callable[..., None]]:
    """Returns the compiled transforms, of the input and of the output.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    grid, pointer = ctypes.POINTER(_Grid), ctypes.c_void_p
    of_input, of_output = function(_FILE, "winograd_input_1"), function(_FILE, "winograd_output_2")
    of_input.argtypes, of_input.restype = [pointer, pointer, grid], None
    of_output.argtypes, of_output.restype = [pointer, pointer, pointer, pointer, grid, ctypes.c_int64], None
    return of_input, of_output


def transform_weight(weight: Tensor) -> Tensor:
    """Transforms the weights (O, I, 3, 3) of a convolution: (36, I, O) float32, computed in float64."""
    g = torch.tensor(_G, dtype=torch.float64)
    outputs, inputs = weight.shape[:2]
    transformed = torch.einsum("ai,ocij,bj->abco", g, weight.double(), g)
    return transformed.reshape(len(_G) ** 2, inputs, outputs).float().contiguous()


def fits(weight: Tensor) -> bool:
    """Whether :func:`winograd_conv2d` takes weights of this shape, and is quicker for it than a direct convolution."""
    outputs, inputs, *kernel = weight.shape
    if kernel != [3, 3] or inputs % _LANES or outputs % _LANES:
        return False
    return min(inputs, outputs) >= 4 * _LANES and inputs * outputs <= _MAX_WEIGHTS


def winograd_conv2d(
    x: Tensor,
    transformed: Tensor,
    bias: Tensor,
    workspace: Workspace,
    *,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Convolves with 3 x 3 kernels, stride 1 and a padding of 1, on as many threads as PyTorch has.

    The result differs from a direct convolution's by about 1e-5 of the largest value: the transforms amplify rounding.

    Args:
        x: (N, C, H, W) float32, channels-last, on the CPU.
        transformed: of :func:`transform_weight`, with numbers of channels that are multiples of 16.
        bias: (O,) float32.
        workspace: memory to use, also for the result.
        relu: apply a ReLU at last.
        residual: to add, of the result's shape, type and layout.

    Returns:
        (N, O, H, W), channels-last.

    Raises:
        OSError: the compiled library is not there.
        ValueError: tensors of other shapes, types or layouts.
    """
    number, channels, height, width = x.shape
    outputs = transformed.shape[2]
    if (channels % _LANES, outputs % _LANES, len(transformed), transformed.shape[1]) != (0, 0, len(_G) ** 2, channels):
        raise ValueError(
            f"weights {tuple(transformed.shape)} do not fit {channels} channels, or are no multiples of {_LANES}"
        )
    if residual is not None and residual.shape != (number, outputs, height, width):
        raise ValueError(f"the residual {tuple(residual.shape)} does not fit {(number, outputs, height, width)}")
    if bias.dtype != torch.float32 or not all(
        value.dtype == torch.float32 and value.is_contiguous(memory_format=torch.channels_last)
        for value in (x, *(() if residual is None else (residual,)))
    ):
        raise ValueError("the input must be channels-last, and input and bias float32")
    result = workspace.channels_last(number, outputs, height, width)
    tiles_y, tiles_x = -(-height // _TILE), -(-width // _TILE)
    transform_input, transform_output = library()
    threads = torch.get_num_threads()
    total = number * tiles_y * tiles_x
    most = len(transformed) * min(total, _TILES_AT_ONCE)
    memory_in, memory_out = workspace.empty(most * channels), workspace.empty(most * outputs)
    for first in range(0, total, _TILES_AT_ONCE):
        count = min(_TILES_AT_ONCE, total - first)
        patches, products = (
            memory[: len(transformed) * count * depth].view(len(transformed), count, depth)
            for memory, depth in ((memory_in, channels), (memory_out, outputs))
        )
        grid = _Grid(height, width, channels, tiles_y, tiles_x, first, count, threads)
        transform_input(x.data_ptr(), patches.data_ptr(), ctypes.byref(grid))
        torch.bmm(patches, transformed, out=products)
        grid.channels = outputs
        transform_output(
            products.data_ptr(),
            bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            result.data_ptr(),
            ctypes.byref(grid),
            relu,
        )
    return result
