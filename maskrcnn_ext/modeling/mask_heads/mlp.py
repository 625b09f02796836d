"""Masks predicted by fully connected layers, the alternative in table 2e of Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from maskrcnn_ext.modeling.mask_heads.base import GridMaskHead
from maskrcnn_ext.modeling.mask_heads.layers import fc_stack


class MLPMaskHead(GridMaskHead):
    """A multi-layer perceptron that predicts a mask for each class (Mask R-CNN, arXiv:1703.06870, table 2e: 2.1 AP below the FCN).

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.MLPMaskHead
    """

    needs_exact_size = True
    weak_losses = ("points", "box")

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],  # noqa: ARG002
        conv_norm: str = "",  # noqa: ARG002
        fc_dims: Sequence[int] = (1024, 1024),
        output_size: int = 28,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers, for RoI features of one size. See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            conv_dims: not used, as the head has no convolutions; every config passes it.
            conv_norm: not used, for the same reason.
            fc_dims: outputs of the hidden layers; the paper has (1024, 1024) and (1024, 1024, 1024).
            output_size: side of the mask in pixels.
        """
        super().__init__(
            input_shape, num_classes=num_classes, mask_loss=mask_loss, loss_weight=loss_weight, vis_period=vis_period
        )
        self.output_size = output_size
        fc_dims = list(fc_dims)
        self.fcs = fc_stack(input_shape.channels * input_shape.height * input_shape.width, fc_dims)
        self.predictor = nn.Linear(fc_dims[-1], num_classes * output_size**2)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def layers(self, x: Tensor) -> Tensor:
        """Returns (R, num_classes, output_size, output_size) logits."""
        logits = self.predictor(self.fcs(x.flatten(1)))
        return logits.view(-1, self.num_classes, self.output_size, self.output_size)
