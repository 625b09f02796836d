"""Non-maximum suppression of sorted boxes on CUDA, in Triton: one program per list."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Boxes per warp, held in its registers.
_BOXES_OF_A_WARP = 256
_MOST_WARPS = 16


@triton.jit
def _kernel(boxes, valid, stays, number, threshold, block: tl.constexpr):
    """Processes one list from its best box on; each box is compared with all later boxes at once."""
    of_list = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, block)
    there = index < number
    first = boxes + of_list * number * 4
    left = tl.load(first + 4 * index, mask=there, other=0.0)
    top = tl.load(first + 4 * index + 1, mask=there, other=0.0)
    right = tl.load(first + 4 * index + 2, mask=there, other=0.0)
    bottom = tl.load(first + 4 * index + 3, mask=there, other=0.0)
    area = (right - left) * (bottom - top)
    alive = tl.load(valid + of_list * number + index, mask=there, other=0).to(tl.int32)
    last = tl.max(tl.where(alive != 0, index, -1), axis=0)
    for best in range(last):
        if tl.sum(tl.where(index == best, alive, 0), axis=0) != 0:
            x0, y0 = tl.load(first + 4 * best), tl.load(first + 4 * best + 1)
            x1, y1 = tl.load(first + 4 * best + 2), tl.load(first + 4 * best + 3)
            width = tl.maximum(tl.minimum(right, x1) - tl.maximum(left, x0), 0.0)
            height = tl.maximum(tl.minimum(bottom, y1) - tl.maximum(top, y0), 0.0)
            shared = width * height
            covered = shared / (area + (x1 - x0) * (y1 - y0) - shared) > threshold
            alive = tl.where(covered & (index > best), 0, alive)
    tl.store(stays + of_list * number + index, alive.to(tl.int8), mask=there)


def sorted_nms(boxes: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Computes :func:`maskrcnn_ext.ops.sorted_nms.sorted_nms`."""
    lists, number = valid.shape
    stays = torch.empty(valid.shape, dtype=torch.int8, device=valid.device)
    block = triton.next_power_of_2(number)
    with torch.cuda.device_of(boxes):
        _kernel[(lists,)](
            boxes.float().contiguous(),
            valid.to(torch.int8),
            stays,
            number,
            threshold,
            block,
            num_warps=max(1, min(block // _BOXES_OF_A_WARP, _MOST_WARPS)),
        )
    return stays.bool()
