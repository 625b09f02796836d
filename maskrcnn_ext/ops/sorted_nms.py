"""Non-maximum suppression of many lists of boxes at once, whose results have a size that is known before: nothing waits for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_ext.ops.triton_support import why_no_triton


@torch.library.custom_op("maskrcnn_ext::sorted_nms", mutates_args=())
def sorted_nms(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Which boxes stay of every list: greedily, the best of those that are left, without what overlaps it by more than the threshold.

    Results are those of ``torchvision.ops.nms`` of every list's valid boxes. On CUDA it is one Triton kernel, where Triton runs.

    Args:
        boxes: (P, B, 4) float32 of P lists, x0, y0, x1, y1, by descending score.
        valid: (P, B) bool; others neither stay nor suppress.
        threshold: largest intersection over union.

    Returns:
        (P, B) bool.
    """
    if boxes.is_cuda and boxes.numel() and why_no_triton() is None:
        from maskrcnn_ext.ops import sorted_nms_triton

        return sorted_nms_triton.sorted_nms(boxes, valid, threshold)
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
