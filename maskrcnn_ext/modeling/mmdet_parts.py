"""The parts of MMDetection's detectors that compute differently from Detectron2's; imported weights need them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from maskrcnn_ext.common.ranges import is_at_least
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.base import MaskHead
from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead
from maskrcnn_ext.modeling.mask_heads.ground_truth import select_class


class SymmetricBox2BoxTransform(Box2BoxTransform):
    """Detectron2's ``Box2BoxTransform`` that limits not only the growth but also the shrinking of a box, to 1000 / 16 by default."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Applies deltas (N, 4) or (N, classes * 4) to boxes.

        Args:
            deltas: dx, dy, dw, dh of each class, times the weights.
            boxes: (N, 4), x0, y0, x1, y1.
        """
        _, _, width, height = self.weights
        unlimited = -float("inf")
        least = deltas.new_tensor([unlimited, unlimited, -self.scale_clamp * width, -self.scale_clamp * height])
        moved: Tensor = super().apply_deltas(deltas.maximum(least.repeat(deltas.shape[1] // 4)), boxes)
        return moved


class MeanLogitCascadeROIHeads(CascadeROIHeads):
    """Cascade R-CNN (arXiv:1712.00726) that averages the stages' class logits, and whose stages may predict a box per class.

    Detectron2 averages probabilities, and its stages share one box between the classes. With a box per class, a stage passes on the box
    of the proposal's ground-truth class in training, and of its most probable class for the background and in inference.

    Example::

        model.roi_heads._target_=maskrcnn_ext.modeling.mmdet_parts.MeanLogitCascadeROIHeads
    """

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances] | None = None
    ) -> dict[str, Tensor] | list[Instances]:
        maps = [features[name] for name in self.box_in_features]
        sizes = [image.image_size for image in proposals]
        losses: dict[str, Tensor] = {}
        all_logits: list[Tensor] = []
        boxes: list[Tensor] = []
        for stage, predictor in enumerate(self.box_predictor):
            if stage:
                proposals = self._create_proposals_from_boxes(boxes, sizes)
                if self.training:
                    proposals = self._match_and_label_boxes(proposals, stage, targets)
            logits, deltas = self._run_stage(maps, proposals, stage)
            boxes = list(predictor.predict_boxes((logits, deltas), proposals))
            if self.training:
                with get_event_storage().name_scope(f"stage{stage}"):
                    stage_losses = predictor.losses((logits, deltas), proposals)
                losses.update({f"{name}_stage{stage}": loss for name, loss in stage_losses.items()})
            all_logits.append(logits)
            if stage + 1 < len(self.box_predictor):
                boxes = self._select_boxes(boxes, logits, proposals)
        if self.training:
            return losses
        probs = mean_logit_probs(all_logits).split([len(image) for image in proposals])
        found: list[Instances] = fast_rcnn_inference(
            boxes,
            list(probs),
            sizes,
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )[0]
        return found

    def _select_boxes(self, boxes: list[Tensor], logits: Tensor, proposals: list[Instances]) -> list[Tensor]:
        """Returns the boxes (R_i, 4) that the next stage starts from, of boxes (R_i, 4) or (R_i, 4 * classes)."""
        if boxes[0].shape[1] == 4:
            return boxes
        selected = []
        for of_image, own, image in zip(boxes, logits.split([len(part) for part in boxes]), proposals, strict=True):
            classes = own[:, :-1].argmax(dim=1)
            if self.training:
                classes = torch.where(image.gt_classes < self.num_classes, image.gt_classes, classes)
            selected.append(select_box(of_image, classes))
        return selected


def mean_logit_probs(logits: Sequence[Tensor]) -> Tensor:
    """Returns the softmax (R, K + 1) of the mean of the stages' logits, each (R, K + 1).

    Example:
        >>> mean_logit_probs([torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]])])
        tensor([[0.5000, 0.5000]])
    """
    return (sum(logits[1:], logits[0]) / len(logits)).softmax(dim=1)


def select_box(boxes: Tensor, classes: Tensor) -> Tensor:
    """Returns the box (R, 4) of each row's class.

    Args:
        boxes: (R, 4 * K)
        classes: (R,) int64, below K.
    """
    by_class = boxes.reshape(len(boxes), boxes.shape[1] // 4, 4)
    return by_class.gather(1, classes[:, None, None].expand(-1, 1, 4))[:, 0]


class MeanMaskHead(MaskHead):
    """Several fully convolutional mask heads whose probabilities are averaged, as MMDetection's Cascade Mask R-CNN does.

    There each stage has a mask head, trained on the stage's boxes. Here every head is trained on the boxes of the first stage, and the
    loss is the mean of theirs. Each head costs as much as Mask R-CNN's.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.modeling.mmdet_parts.MeanMaskHead model.roi_heads.mask_head.num_heads=3
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        num_heads: int = 3,
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the heads. See :class:`.mask_heads.base.MaskHead` for the arguments of every head.

        Args:
            conv_dims: channels of the 3 x 3 convolutions and, last, of the deconvolution.
            num_heads: how many heads there are.

        Raises:
            InputError: there are no heads.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        if not is_at_least(num_heads, 1):
            raise InputError(f"model.roi_heads.mask_head.num_heads={num_heads}: expected 1 or more")
        self.heads = nn.ModuleList(
            FCNMaskHead(
                input_shape,
                num_classes=num_classes,
                conv_dims=conv_dims,
                conv_norm=conv_norm,
                vis_period=0 if index else vis_period,
            )
            for index in range(num_heads)
        )

    def predict(self, x: Tensor, boxes: list[Boxes]) -> list[Tensor]:  # noqa: ARG002
        """Returns the logits (R, num_classes, S, S) of each head."""
        return [head.layers(x) for head in self.heads]

    def losses(self, prediction: list[Tensor], instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask``, the mean of the heads' losses."""
        losses = [head.grid_loss(logits, instances) for head, logits in zip(self.heads, prediction, strict=True)]
        return {"loss_mask": torch.stack(losses).mean()}

    def probs(self, prediction: list[Tensor], classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S), the mean of the heads' probabilities."""
        return torch.stack([select_class(logits, classes).sigmoid() for logits in prediction]).mean(dim=0)[:, None]
