"""Masks by a softmax over classes, the multinomial alternative in table 2b of Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.modeling.mask_heads.base import MaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import (
    classes_of,
    known_pixels,
    log_accuracy,
    log_images,
    target_masks,
)
from maskrcnn_ext.modeling.mask_heads.losses import mean_known


class SoftmaxMaskHead(MaskHead):
    """A softmax over the classes and the background at each pixel (Mask R-CNN, arXiv:1703.06870, table 2b: 5.5 AP below sigmoids).

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.SoftmaxMaskHead
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers of Mask R-CNN's head with one more channel, the last, for the background.

        Args:
            conv_dims: channels of the 3 x 3 convolutions and, last, of the deconvolution.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        self.fcn = MaskRCNNConvUpsampleHead(
            input_shape, num_classes=num_classes + 1, conv_dims=list(conv_dims), conv_norm=conv_norm
        )

    def predict(self, x: Tensor, boxes: list[Boxes]) -> Tensor:  # noqa: ARG002
        """Returns (R, num_classes + 1, S, S) logits."""
        logits: Tensor = self.fcn.layers(x)
        return logits

    def losses(self, prediction: Tensor, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask``: the mean cross-entropy of the pixels, each labelled as the RoI's class or as background."""
        if len(prediction) == 0:
            return {"loss_mask": empty_loss(prediction)}
        classes = self._channels(classes_of(instances))
        targets = target_masks(instances, prediction.shape[-1])
        probs = self.probs(prediction, classes)[:, 0]
        log_accuracy(probs > 0.5, targets)
        log_images(probs, targets, self.vis_period)
        labels = torch.where(targets, classes[:, None, None], self.num_classes)
        losses = F.cross_entropy(prediction.float(), labels, reduction="none")
        return {"loss_mask": mean_known(losses, known_pixels(instances, prediction.shape[-1]))}

    def probs(self, prediction: Tensor, classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S)."""
        rows = torch.arange(len(prediction), device=prediction.device)
        return prediction.softmax(1)[rows, self._channels(classes)][:, None]

    def _channels(self, classes: Tensor) -> Tensor:
        # Class-agnostic masks have one foreground channel for all classes.
        return classes if self.num_classes > 1 else torch.zeros_like(classes)
