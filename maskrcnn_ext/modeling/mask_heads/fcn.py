"""Mask R-CNN's own head, with a choice of mask losses."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from torch import Tensor

from maskrcnn_ext.modeling.mask_heads.base import GridMaskHead


class FCNMaskHead(GridMaskHead):
    """The fully convolutional head of Mask R-CNN (arXiv:1703.06870, figure 4): Detectron2's head with the option ``mask_loss``.

    Parameter names and results are those of Detectron2's head, so that its weights load.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.FCNMaskHead model.roi_heads.mask_head.mask_loss=bce+dice
    """

    weak_losses = ("points", "box")

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        mask_loss: str = "bce",
        pairwise_warmup: int = 10000,
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers. See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            conv_dims: channels of the 3 x 3 convolutions and, last, of the deconvolution.
            pairwise_warmup: with ``mask_loss="box"``, iterations in which the weight of the pairwise term rises from 0 to 1: a ninth of
                the training in the paper.
        """
        super().__init__(
            input_shape, num_classes=num_classes, mask_loss=mask_loss, loss_weight=loss_weight, vis_period=vis_period
        )
        self.pairwise_warmup = pairwise_warmup
        stock = MaskRCNNConvUpsampleHead(
            input_shape, num_classes=num_classes, conv_dims=list(conv_dims), conv_norm=conv_norm
        )
        for name, module in stock.named_children():
            self.add_module(name, module)

    def layers(self, x: Tensor) -> Tensor:
        """Returns (R, num_classes, 2 H, 2 W) logits."""
        for layer in self.children():
            x = layer(x)
        return x
