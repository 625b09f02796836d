"""Box arithmetic in which a box extends from its first to its last pixel, as in Matterport's normalised coordinates.

Outside these functions a box (x0, y0, x1, y1) ends at the end of its last pixel, as in Detectron2. Matterport divides x0 and x1 - 1 by
W - 1, so a box of n pixels is n - 1 wide for deltas and overlaps.
"""

from __future__ import annotations

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor
from torchvision.ops import batched_nms


class InclusiveBoxTransform(Box2BoxTransform):
    """Detectron2's ``Box2BoxTransform`` (dx, dy, dw, dh) for boxes that end at their last pixel.

    Matterport's standard deviations (0.1, 0.1, 0.2, 0.2) are the weights (10, 10, 5, 5). Matterport does not limit the growth of a box,
    so `scale_clamp` must be large.
    """

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Returns deltas (R, 4) from boxes (R, 4) to targets (R, 4); sides count as two pixels at least, so their logarithm is finite."""
        return super().get_deltas(*(inclusive(boxes, least=1.0) for boxes in (src_boxes, target_boxes)))

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Applies deltas (R, k * 4) to boxes (R, 4) and returns boxes (R, k * 4)."""
        found = super().apply_deltas(deltas, inclusive(boxes)).unflatten(1, (-1, 4))
        return (found + found.new_tensor([0, 0, 1, 1])).flatten(1)


def nms_inclusive(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression within each group.

    Args:
        boxes: (R, 4)
        scores: (R,)
        groups: (R,) int64, such as classes.
        threshold: IoU above which a box suppresses a worse one of its group.

    Returns:
        Indices (M,) int64 of the kept boxes, by descending score.
    """
    # torchvision separates the groups by offsets, which cost digits in float32.
    return batched_nms(inclusive(boxes).double(), scores.double(), groups, threshold)


def inclusive(boxes: Tensor, least: float = 0.0) -> Tensor:
    """Returns boxes (R, 4) that end at their last pixel; each side is at least `least`."""
    starts, ends = boxes[:, :2], boxes[:, 2:] - 1
    return torch.cat([starts, torch.maximum(ends, starts + least) if least else ends], dim=1)
