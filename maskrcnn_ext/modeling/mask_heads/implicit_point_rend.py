"""The head of Implicit PointRend: it predicts, for each RoI, the parameters of an MLP that classifies points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.base import MaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import classes_of, log_accuracy, select_class
from maskrcnn_ext.modeling.mask_heads.point_heads import (
    DynamicPointMLP,
    check_num_levels,
    finest_maps,
    grid_features,
    known_points,
    point_features,
    point_labels,
    point_loss,
    roi_head,
    subdivide,
    supervised_point_loss,
)


class ImplicitPrediction(NamedTuple):
    """Inputs of the logits at points."""

    maps: list[Tensor]  # (N, C, H_l, W_l) each, finest first
    boxes: list[Boxes]  # one an image
    parameters: Tensor  # (R, num_params) of each RoI's MLP


class ImplicitPointRendMaskHead(MaskHead):
    """PointRend without a coarse mask (CVPR 2022, arXiv:2104.06404, "Implicit PointRend"). Needs ``mask_pooler=null``.

    The head predicts the parameters of one MLP for each RoI. The MLP classifies points of the box as mask or background, from their
    position and the features of the finest map. It is trained at random points; inference uses PointRend's subdivision.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.ImplicitPointRendMaskHead model.roi_heads.mask_pooler=null
    """

    takes_roi_features = False
    takes_pyramid = True
    weak_losses = ("points",)

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",  # noqa: ARG002
        strides: Sequence[int] = (4, 8, 16, 32),
        num_levels: int = 1,
        fc_dim: int = 1024,
        num_fc: int = 2,
        point_fc_dim: int = 256,
        num_point_fc: int = 3,
        train_num_points: int = 196,
        subdivision_steps: int = 3,
        subdivision_num_points: int = 784,
        l2_weight: float = 1e-5,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers that predict the parameters. The defaults are those of Detectron2's models for COCO.

        With the defaults and 80 classes, the last layer has 290 million weights. See :class:`.base.MaskHead` for the arguments of every
        head.

        Args:
            input_shape: channels of the feature maps, and the even height and width of the grid of a RoI's features.
            conv_dims: the last entry is the number of channels of the first convolution; features with more are reduced to it.
            conv_norm: not used, as the published head has no norm; every config passes it.
            strides: of the feature maps in pixels of the input image, finest first.
            num_levels: number of the finest feature maps whose features are concatenated; 1 in the paper.
            fc_dim: outputs of the hidden layers before the parameters.
            num_fc: hidden layers before the parameters.
            point_fc_dim: outputs of a hidden layer of a RoI's MLP.
            num_point_fc: hidden layers of a RoI's MLP.
            train_num_points: points per RoI in training.
            subdivision_steps: how often the side of the mask doubles in inference, starting at the root of ``subdivision_num_points``.
            subdivision_num_points: pixels of the first mask, a square number, and pixels that each step of inference predicts again.
            l2_weight: factor of ``loss_l2``, the mean square of the parameters.
            mask_loss: "bce" at random points of the masks; "points" at the labelled points of the data, without masks.
            vis_period: not used, as points make no picture; every config passes it.

        Raises:
            InputError: ``num_levels`` exceeds the feature maps, the side of the RoI grid is odd, or subdivision_num_points is not a square.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        self.strides = list(strides)
        self.num_levels = check_num_levels(num_levels, strides)
        self.train_num_points = train_num_points
        self.subdivision_steps = subdivision_steps
        self.subdivision_num_points = subdivision_num_points
        self.start_size = math.isqrt(subdivision_num_points)
        if self.start_size**2 != subdivision_num_points:
            raise InputError(
                f"subdivision_num_points={subdivision_num_points} is not a square number: "
                f"set model.roi_heads.mask_head.subdivision_num_points={self.start_size**2}"
            )
        self.l2_weight = l2_weight
        if mask_loss not in ("bce", "points"):
            raise InputError(f"mask_loss={mask_loss}: ImplicitPointRendMaskHead has bce and points")
        self.needs_masks = mask_loss == "bce"
        channels = input_shape.channels * num_levels
        self.point_head = DynamicPointMLP(channels, num_classes, fc_dim=point_fc_dim, num_fc=num_point_fc)
        self.parameter_head = roi_head(
            ShapeSpec(channels=channels, height=input_shape.height, width=input_shape.width),
            list(conv_dims)[-1],
            fc_dims=[fc_dim] * num_fc,
            output_shape=(self.point_head.num_params,),
        )

    def predict(self, x: dict[str, Tensor], boxes: list[Boxes]) -> ImplicitPrediction:
        """Predicts the parameters of the MLPs."""
        maps = finest_maps(x, self.num_levels)
        parameters = self.parameter_head(grid_features(maps, self.strides, boxes, self.input_shape.height))
        return ImplicitPrediction(maps, boxes, parameters)

    def point_logits(self, prediction: ImplicitPrediction, coords: Tensor) -> Tensor:
        """Returns (R, num_classes, P) logits at points ``coords`` (R, P, 2), relative to the boxes."""
        fine = point_features(prediction.maps, self.strides, prediction.boxes, coords)
        logits: Tensor = self.point_head(fine, coords, prediction.parameters)
        return logits

    def losses(self, prediction: ImplicitPrediction, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask_point`` and ``loss_l2``."""
        parameters = prediction.parameters
        if not self.needs_masks:
            loss_l2 = self.l2_weight * parameters.float().square().mean() if len(parameters) else empty_loss(parameters)
            return {"loss_mask_point": supervised_point_loss(self, prediction, instances), "loss_l2": loss_l2}
        coords = torch.rand(len(parameters), self.train_num_points, 2, device=parameters.device)
        logits = self.point_logits(prediction, coords)
        if len(parameters) == 0:
            return {"loss_mask_point": empty_loss(logits), "loss_l2": empty_loss(parameters)}
        logits = select_class(logits, classes_of(instances))
        labels = point_labels(instances, coords)
        log_accuracy(logits > 0, labels > 0.5)
        return {
            "loss_mask_point": point_loss(logits, labels, known_points(instances, coords)),
            "loss_l2": self.l2_weight * parameters.float().square().mean(),
        }

    def probs(self, prediction: ImplicitPrediction, classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S), S = sqrt(subdivision_num_points) * 2 ** subdivision_steps."""
        logits = subdivide(
            lambda coords: select_class(self.point_logits(prediction, coords), classes),
            prediction.parameters.shape[0],
            size=self.start_size,
            steps=self.subdivision_steps,
            num_points=self.subdivision_num_points,
            device=prediction.parameters.device,
        )
        return logits[:, None].sigmoid()
