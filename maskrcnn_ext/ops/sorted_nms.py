"""Non-maximum suppression of many lists of boxes at once: compiled on a CPU (``csrc/nms.cpp``), one Triton kernel on a GPU.

The output shape is fixed, so the host does not wait for a GPU.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_ext.ops.native import function, loads, triton_unavailable_reason
from maskrcnn_ext.ops.self_check import SelfChecks

# Share of boxes about which rounding may decide otherwise.
_OTHERS = 0.01
_checks = SelfChecks()
_FILE = Path(__file__).with_name("_nms.so")


@functools.cache
def library() -> Any:
    """Returns the compiled function.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    compiled = function(_FILE, "sorted_nms_1")
    compiled.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_double, ctypes.c_int64]
    compiled.restype = None
    return compiled


@torch.library.custom_op("maskrcnn_ext::sorted_nms", mutates_args=())
def sorted_nms(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Returns which boxes of each list are kept by greedy suppression of boxes that overlap a better one by more than the threshold.

    Results are those of ``torchvision.ops.nms`` on the valid boxes of each list. Without the compiled library or Triton, it is slower.

    Args:
        boxes: (P, B, 4) float32, x0, y0, x1, y1, sorted by descending score. P: lists, B: boxes of a list.
        valid: (P, B) bool; other boxes are neither kept nor suppress any.
        threshold: largest intersection over union.

    Returns:
        (P, B) bool.

    Raises:
        ValueError: the tensors have other shapes, or `valid` is not bool.
    """
    if boxes.shape != (*valid.shape, 4) or valid.dim() != 2 or valid.dtype != torch.bool:
        raise ValueError(
            f"boxes {tuple(boxes.shape)} and valid {tuple(valid.shape)} of {valid.dtype}: expected (P, B, 4) and (P, B) of bool"
        )
    if boxes.is_cuda and boxes.numel() and triton_unavailable_reason() is None:
        from maskrcnn_ext.ops import sorted_nms_triton

        (stays,) = _checks.run(
            "suppression",
            lambda: [sorted_nms_triton.sorted_nms(boxes, valid, threshold)],
            lambda: [_suppress(boxes, valid, threshold)],
            variant=boxes.shape[1],
            others=_OTHERS,
        )
        return stays
    if boxes.device.type == "cpu" and boxes.dtype == torch.float32 and loads(library):
        return _suppress_on_cpu(boxes.contiguous(), valid.contiguous(), threshold)
    return _suppress(boxes, valid, threshold)


def _suppress_on_cpu(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    stays = torch.empty_like(valid)
    pointers = boxes.data_ptr(), valid.data_ptr(), stays.data_ptr()
    library()(*pointers, *valid.shape, threshold, torch.get_num_threads())
    return stays


def _suppress(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    low, high = boxes.split(2, dim=2)
    area = (high - low).prod(dim=2)
    stays = valid.clone()
    for index in range(boxes.shape[1] - 1):
        rest = slice(index + 1, None)
        one = slice(index, index + 1)
        shared = (torch.minimum(high[:, rest], high[:, one]) - torch.maximum(low[:, rest], low[:, one])).clamp(min=0)
        intersection = shared.prod(dim=2)
        covered = intersection / (area[:, rest] + area[:, one] - intersection) > threshold
        stays[:, rest] &= ~(covered & stays[:, one])
    return stays


@sorted_nms.register_fake
def _(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:  # noqa: ARG001
    return torch.empty_like(valid)
