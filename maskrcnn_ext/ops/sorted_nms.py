"""Non-maximum suppression of many lists of boxes at once. The output shape is fixed, so the host does not wait for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_ext.ops.native import triton_unavailable_reason
from maskrcnn_ext.ops.self_check import SelfChecks

# Share of boxes about which rounding may decide otherwise.
_OTHERS = 0.01
_checks = SelfChecks()


@torch.library.custom_op("maskrcnn_ext::sorted_nms", mutates_args=())
def sorted_nms(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Returns which boxes of each list are kept by greedy suppression of boxes that overlap a better one by more than the threshold.

    Results are those of ``torchvision.ops.nms`` on the valid boxes of each list. On CUDA it is one Triton kernel if Triton runs.

    Args:
        boxes: (P, B, 4) float32, x0, y0, x1, y1, sorted by descending score. P: lists, B: boxes of a list.
        valid: (P, B) bool; other boxes are neither kept nor suppress any.
        threshold: largest intersection over union.

    Returns:
        (P, B) bool.
    """
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
    return _suppress(boxes, valid, threshold)


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
