"""RoIAlign over a feature pyramid on the CPU: the compiled library of ``csrc/roi_align.cpp``, called without a Python binding.

The library uses neither Python nor torch, so that one build works with every release of both.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_ext.ops.native import function
from maskrcnn_ext.ops.roi_align_reference import SampleGrid

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_FILE = Path(__file__).with_name("_roi_align.so")


class _Level(ctypes.Structure):
    """``Level`` of the C++ source."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("height", "width", "image", "channel", "row", "column")),
        ("scale", ctypes.c_double),
    )


class _Arguments(ctypes.Structure):
    """``Arguments`` of the C++ source."""

    _fields_ = (
        ("levels", ctypes.POINTER(_Level)),
        *((name, ctypes.c_void_p) for name in ("rois", "level_of", "pooled")),
        *((name, ctypes.c_int64) for name in ("num_levels", "num_rois", "num_images", "channels", "bins_y", "bins_x")),
        *((name, ctypes.c_int64) for name in ("sampling_ratio", "aligned", "backward", "channels_last", "dtype")),
        ("threads", ctypes.c_int64),
    )


@functools.cache
def library() -> Any:
    """Returns the compiled function.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    compiled = function(_FILE, "roi_align_1")
    compiled.argtypes, compiled.restype = [ctypes.POINTER(_Arguments)], None
    return compiled


def forward(features: Sequence[Tensor], grid: SampleGrid, pooled: Tensor | None = None) -> Tensor:
    """Returns the pooled features (M, C, h, w), written into `pooled` if given. All features have the memory format of ``grid``."""
    if pooled is None:
        shape = (len(grid.rois), features[0].shape[1], *grid.output_size)
        pooled = torch.empty(shape, dtype=features[0].dtype, memory_format=grid.memory_format)
    _run(features, pooled, grid, backward=False)
    return pooled


def backward(gradient: Tensor, sizes: Sequence[Sequence[int]], grid: SampleGrid) -> list[Tensor]:
    """Returns the gradients of the features, in float32, from that of the result; ``sizes`` are (N, H, W) of each level."""
    shapes = [(images, gradient.shape[1], height, width) for images, height, width in sizes]
    gradients = [torch.empty(shape, memory_format=grid.memory_format).zero_() for shape in shapes]
    _run(gradients, gradient.contiguous(memory_format=grid.memory_format), grid, backward=True)
    return gradients


def _run(levels: Sequence[Tensor], pooled: Tensor, grid: SampleGrid, *, backward: bool) -> None:
    rois = grid.rois.to(torch.float32).contiguous()
    level_of = grid.levels.to(torch.int64).contiguous()
    described = [
        _Level(level.data_ptr(), *level.shape[2:], *level.stride(), scale)
        for level, scale in zip(levels, grid.scales, strict=True)
    ]
    arguments = _Arguments(
        (_Level * len(described))(*described),
        *(tensor.data_ptr() for tensor in (rois, level_of, pooled)),
        *(len(levels), len(rois), len(levels[0]), pooled.shape[1], *grid.output_size),
        *(grid.sampling_ratio, grid.aligned, backward, grid.channels_last, DTYPES[pooled.dtype]),
        torch.get_num_threads(),
    )
    library()(ctypes.byref(arguments))
