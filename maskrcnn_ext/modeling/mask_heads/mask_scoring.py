"""The head of Mask Scoring R-CNN: a branch that predicts the IoU of another mask head's masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.registry import locate
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.base import Features, MaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import classes_of, known_pixels, target_masks
from maskrcnn_ext.modeling.mask_heads.layers import conv, conv_stack, fc_stack, roi_align


class ScoredPrediction(NamedTuple):
    """The prediction of the base head, and the features of the IoU branch."""

    base: Any
    roi_features: Tensor  # (R, C, H, W)


def mask_iou(probs: Tensor, instances: list[Instances]) -> Tensor:
    """Returns the IoU of predicted masks with the whole ground truth, with the part outside of the box (arXiv:1903.00241, section 3.3).

    Predicted pixels in ignore regions do not count.

    Args:
        probs: (R, S, S), masks over the proposals.
        instances: with ``gt_masks`` and ``proposal_boxes``, one for each image.

    Returns:
        (R,) in [0, 1].
    """
    size = probs.shape[-1]
    predicted, targets = probs > 0.5, target_masks(instances, size)
    known = known_pixels(instances, size)
    if known is not None:
        predicted, targets = predicted & known, targets & known
    # Area of a grid cell in pixels of the image.
    cell = torch.cat([image.proposal_boxes.area() for image in instances]) / size**2
    intersection = (predicted & targets).sum((1, 2)) * cell
    inside = targets.sum((1, 2)) * cell
    # The crop may exceed the area of the outline by a rim of grid cells.
    area = torch.cat([_areas(image) for image in instances]).to(inside).maximum(inside)
    union = predicted.sum((1, 2)) * cell + area - intersection
    return intersection / union.clamp(min=1e-6)


def mask_iou_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Returns half the mean squared error, over the RoIs whose target is above 0 only, as in the authors' code (arXiv:1903.00241).

    Args:
        predicted: (R,) IoUs.
        targets: (R,) in [0, 1].

    Returns:
        A scalar, float32; zero if no target is above 0.
    """
    counted = targets > 0
    squares = (predicted.float() - targets).square() * counted
    return 0.5 * squares.sum() / counted.sum().clamp(min=1)


def _areas(image: Instances) -> Tensor:
    """Returns (R_i,), the pixels of each ground-truth mask in the image."""
    if len(image) == 0:
        return torch.zeros(0)
    masks = image.gt_masks
    return masks.tensor.sum((1, 2)) if isinstance(masks, BitMasks) else masks.area()


def find_base(base: str | type[MaskHead]) -> type[MaskHead]:
    """Returns the class of a base head, given as a class or as a name such as ``maskrcnn_ext.DCTMaskHead`` or ``DCTMaskHead``.

    Raises:
        InputError: `base` is not a mask head of this package that can be scored.
    """
    found: Any = base
    if isinstance(base, str):
        try:
            found = locate(base if "." in base else f"maskrcnn_ext.{base}")
        except ImportError:
            found = None
    if not (isinstance(found, type) and issubclass(found, MaskHead)) or issubclass(found, MaskScoringHead):
        raise InputError(
            f"MaskScoringHead needs a mask head of maskrcnn_ext as its base, not base={base}: set "
            "model.roi_heads.mask_head.base=maskrcnn_ext.FCNMaskHead or another that `maskrcnn-ext parts` lists"
        )
    return found


class MaskScoringHead(MaskHead):
    """Predicts the IoU of the base head's mask from RoI features and that mask (Mask Scoring R-CNN, CVPR 2019, arXiv:1903.00241).

    Detections get ``pred_mask_scores`` (R_i,), their class score times the predicted IoU; ``scores`` are unchanged.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.MaskScoringHead model.roi_heads.mask_head.base=maskrcnn_ext.DCTMaskHead
        dataloader.evaluator._target_=maskrcnn_ext.COCOEvaluator
    """

    needs_exact_size = True

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        base: str | type[MaskHead] | MaskHead = "maskrcnn_ext.FCNMaskHead",
        base_options: Mapping[str, Any] | None = None,
        fc_dims: Sequence[int] = (1024, 1024),
        iou_weight: float = 1.0,
        mask_gradient: bool = True,
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the base head and the IoU branch: four 3 x 3 convolutions, the last of stride 2, and fully connected layers.

        See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            num_classes: foreground classes; 1 makes the masks class-agnostic and predicts one IoU for all classes.
            conv_dims: of the base head; the last entry also sets the channels of the IoU branch.
            conv_norm: norm of the convolutions of the base head and of the IoU branch.
            base: the mask head to score: a class of this package, its name, or a head.
            base_options: keywords of the base head, if `base` is a class or a name.
            fc_dims: outputs of the IoU branch's hidden fully connected layers.
            iou_weight: factor of ``loss_mask_iou``.
            mask_gradient: whether ``loss_mask_iou`` trains the base head through its masks too, as in the authors' code. False saves the
                memory of its second pass.

        Raises:
            InputError: ``base`` is not a mask head of this package.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        self.iou_weight = iou_weight
        self.mask_gradient = mask_gradient
        dims, fc_dims = list(conv_dims), list(fc_dims)
        self.base = (
            base
            if isinstance(base, MaskHead)
            else find_base(base)(
                input_shape,
                num_classes=num_classes,
                conv_dims=dims,
                conv_norm=conv_norm,
                vis_period=vis_period,
                **(base_options or {}),
            )
        )
        dim = dims[-1]
        self.iou_convs = nn.Sequential(
            conv_stack(input_shape.channels + 1, [dim] * 3, norm=conv_norm), conv(dim, dim, stride=2, norm=conv_norm)
        )
        height, width = (input_shape.height + 1) // 2, (input_shape.width + 1) // 2
        self.iou_fcs = fc_stack(dim * height * width, fc_dims)
        self.iou_predictor = nn.Linear(fc_dims[-1], num_classes)
        nn.init.normal_(self.iou_predictor.weight, std=0.01)
        nn.init.zeros_(self.iou_predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """Returns the arguments from a yacs config, see :meth:`.base.MaskHead.from_config`; the base head has a node of its name."""
        own = cfg.MODEL.get("MASKRCNN_EXT", CfgNode()).get(cls.__name__, CfgNode())
        arguments = {name.lower(): value for name, value in own.items()}
        base = find_base(arguments.get("base", cls.own_defaults()["base"]))
        of_base = base.from_config(cfg, input_shape)
        options = {name: of_base.pop(name) for name in base.own_defaults() if name in of_base}
        return {**of_base, **arguments, "base": base, "base_options": options}

    def check_input(self, x: Features, source: str = "the pooler") -> None:
        """Raises InputError unless ``x`` is the input that the base head and the IoU branch were built for."""
        self.base.check_input(x, source)
        if not isinstance(x, dict):
            super().check_input(x, source)

    def predict(self, x: Features, boxes: list[Boxes]) -> ScoredPrediction:
        """Runs the base head, and pools RoI features if ``x`` is the pyramid."""
        prediction = self.base.predict(x, boxes)
        if isinstance(x, dict):
            x = roi_align(x, self.base.strides, boxes, self.input_shape.height)
        return ScoredPrediction(prediction, x)

    def predict_iou(self, roi_features: Tensor, probs: Tensor, classes: Tensor) -> Tensor:
        """Returns (R,), the predicted IoU of masks ``probs`` (R, 1, S, S) of ``classes`` (R,)."""
        masks = F.adaptive_max_pool2d(probs.to(roi_features.dtype), roi_features.shape[-2:])
        features = self.iou_convs(torch.cat([roi_features, masks], dim=1)).flatten(1)
        ious = self.iou_predictor(self.iou_fcs(features))
        if self.num_classes == 1:
            return ious[:, 0]
        return ious[torch.arange(len(classes), device=classes.device), classes]

    def losses(self, prediction: ScoredPrediction, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns the base head's losses and ``loss_mask_iou``."""
        losses = self.base.losses(prediction.base, instances)
        losses = {name: loss * self.base.loss_weight for name, loss in losses.items()}
        classes = classes_of(instances)
        with torch.set_grad_enabled(self.mask_gradient and torch.is_grad_enabled()):
            probs = self.base.probs(prediction.base, classes)
        predicted = self.predict_iou(prediction.roi_features, probs, classes)
        if len(predicted) == 0:
            return {**losses, "loss_mask_iou": empty_loss(predicted)}
        loss = mask_iou_loss(predicted, mask_iou(probs[:, 0], instances))
        return {**losses, "loss_mask_iou": loss * self.iou_weight}

    def probs(self, prediction: ScoredPrediction, classes: Tensor) -> Tensor:
        """Returns the base head's masks."""
        return self.base.probs(prediction.base, classes)

    def attach(self, prediction: ScoredPrediction, instances: list[Instances]) -> None:
        """Adds ``pred_masks`` and ``pred_mask_scores`` to the detections."""
        classes = classes_of(instances)
        probs = self.probs(prediction, classes)
        ious = self.predict_iou(prediction.roi_features, probs, classes).clamp(0, 1)
        sizes = [len(image) for image in instances]
        for image, masks, iou in zip(instances, probs.split(sizes), ious.split(sizes), strict=True):
            image.pred_mask_scores = image.scores * iou
            image.pred_masks = masks  # last: BoxPredictor may then select detections
