"""Boxes whose extent is counted from the first to the last pixel, as Matterport's normalised coordinates are.

Everywhere outside these functions a box (x0, y0, x1, y1) ends where its last pixel ends, as Detectron2's do. Matterport divides x0 by
W - 1 and x1 - 1 by W - 1: a box of n pixels is n - 1 wide for its deltas and its overlaps.
"""

from __future__ import annotations

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor
from torchvision.ops import batched_nms


class InclusiveBoxTransform(Box2BoxTransform):
    """Detectron2's ``Box2BoxTransform`` (dx, dy, dw, dh) on boxes of which the last pixel counts as the end.

    Matterport's standard deviations (0.1, 0.1, 0.2, 0.2) are weights (10, 10, 5, 5); it has no limit to the growth of a box, for which
    `scale_clamp` must be large.
    """

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Deltas (R, 4) from boxes (R, 4) to targets (R, 4); one that is less than two pixels wide counts as two, which has a logarithm."""
        return super().get_deltas(*(inclusive(boxes, least=1.0) for boxes in (src_boxes, target_boxes)))

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (R, k * 4) that deltas (R, k * 4) make of boxes (R, 4)."""
        found = super().apply_deltas(deltas, inclusive(boxes)).unflatten(1, (-1, 4))
        return (found + found.new_tensor([0, 0, 1, 1])).flatten(1)


def clip_inclusive(boxes: Tensor, window: Tensor) -> Tensor:
    """Moves the first and the last pixel of boxes (R, 4) into a window, (4,) or (R, 4): a box outside becomes one at its border."""
    starts = boxes[:, :2].clamp(window[..., :2], window[..., 2:] - 1)
    ends = boxes[:, 2:].clamp(window[..., :2] + 1, window[..., 2:])
    return torch.cat([starts, ends], dim=1)


def nms_inclusive(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression within each group.

    Args:
        boxes: (R, 4).
        scores: (R,).
        groups: (R,) int64, such as classes.
        threshold: a box goes that overlaps a better one of its group by more.

    Returns:
        Indices of those that stay, (M,) int64, by descending score.
    """
    # torchvision moves the groups apart: in float32 that would cost the boxes some of their digits.
    return batched_nms(inclusive(boxes).double(), scores.double(), groups, threshold)


def inclusive(boxes: Tensor, least: float = 0.0) -> Tensor:
    """Boxes (R, 4) that end at their last pixel, and extend over `least` pixels more than one."""
    starts, ends = boxes[:, :2], boxes[:, 2:] - 1
    return torch.cat([starts, torch.maximum(ends, starts + least) if least else ends], dim=1)
