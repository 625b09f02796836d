"""The parts of MMDetection's detectors that compute differently from Detectron2's; imported weights need them."""

from __future__ import annotations

from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor


class SymmetricBox2BoxTransform(Box2BoxTransform):
    """Detectron2's ``Box2BoxTransform`` that limits not only the growth but also the shrinking of a box, to 1000 / 16 by default."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Applies deltas (N, 4 or classes * 4) to boxes.

        Args:
            deltas: dx, dy, dw, dh of each class, times the weights.
            boxes: (N, 4), x0, y0, x1, y1.
        """
        _, _, width, height = self.weights
        unlimited = -float("inf")
        least = deltas.new_tensor([unlimited, unlimited, -self.scale_clamp * width, -self.scale_clamp * height])
        moved: Tensor = super().apply_deltas(deltas.maximum(least.repeat(deltas.shape[1] // 4)), boxes)
        return moved
