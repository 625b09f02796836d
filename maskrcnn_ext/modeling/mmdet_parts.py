"""What MMDetection's detectors compute otherwise than Detectron2's, for weights that were trained with it."""

from __future__ import annotations

from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor


class SymmetricBox2BoxTransform(Box2BoxTransform):
    """Detectron2's transform that limits how much a box shrinks as well as how much it grows, to 1000 / 16 by default."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Returns the boxes moved by deltas (N, 4 or classes x 4), as Detectron2 does.

        Args:
            deltas: dx, dy, dw, dh of every class in turn, times the weights.
            boxes: (N, 4), x0, y0, x1, y1.
        """
        _, _, width, height = self.weights
        none = -float("inf")
        least = deltas.new_tensor([none, none, -self.scale_clamp * width, -self.scale_clamp * height])
        moved: Tensor = super().apply_deltas(deltas.maximum(least.repeat(deltas.shape[1] // 4)), boxes)
        return moved
