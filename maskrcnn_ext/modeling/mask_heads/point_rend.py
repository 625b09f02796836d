"""The head of PointRend: a coarse mask for each RoI, and an MLP that classifies the points where the mask is least certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskrcnn_ext.modeling.mask_heads.base import GridMaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import classes_of, select_class
from maskrcnn_ext.modeling.mask_heads.point_heads import (
    PointMLP,
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


class CoarsePrediction(NamedTuple):
    """Inputs of the logits at points."""

    maps: list[Tensor]  # (N, C, H_l, W_l) each, finest first
    boxes: list[Boxes]  # one an image
    coarse: Tensor  # (R, num_classes, coarse_size, coarse_size) logits


class PointRendMaskHead(GridMaskHead):
    """Segmentation as rendering (PointRend, CVPR 2020, arXiv:1912.08193, sections 3 and 4). Needs ``mask_pooler=null``.

    The head predicts a mask of 7 x 7 from the finest feature map. An MLP then predicts points from that mask and the features of the finest
    map: in training at points sampled where the mask is uncertain, in inference by subdivision up to 224 x 224.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.PointRendMaskHead model.roi_heads.mask_pooler=null
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
        coarse_size: int = 7,
        refine_points: bool = True,
        point_fc_dim: int = 256,
        num_point_fc: int = 3,
        train_num_points: int = 196,
        oversample_ratio: int = 3,
        importance_sample_ratio: float = 0.75,
        subdivision_steps: int = 5,
        subdivision_num_points: int = 784,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the coarse head and the point head. The defaults are those of Detectron2's models for COCO.

        See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            input_shape: channels of the feature maps, and the even height and width of the grid of a RoI's features.
            conv_dims: the last entry is the number of channels of the coarse head's convolution; features with more are reduced to it.
            conv_norm: not used, as the published head has no norm; every config passes it.
            strides: of the feature maps in pixels of the input image, finest first.
            num_levels: number of the finest feature maps whose features are concatenated; 1 in the paper.
            fc_dim: outputs of the coarse head's hidden layers.
            num_fc: hidden layers of the coarse head.
            coarse_size: side of the coarse mask in pixels.
            refine_points: whether a point head refines the coarse mask; without one, the coarse mask is the result.
            point_fc_dim: outputs of the point head's hidden layers.
            num_point_fc: hidden layers of the point head.
            train_num_points: points per RoI in training, N in section 3.1 of the paper.
            oversample_ratio: candidates for each point in training, k there.
            importance_sample_ratio: share of uncertain points, beta there; the other points are random.
            subdivision_steps: how often the side of the coarse mask doubles in inference.
            subdivision_num_points: pixels that each step of inference predicts again.
            mask_loss: of the coarse mask; see :class:`.base.GridMaskHead`. With "points", the point head learns from the same points.

        Raises:
            InputError: ``num_levels`` exceeds the feature maps, the side of the RoI grid is odd, or the mask loss is unknown.
        """
        super().__init__(
            input_shape, num_classes=num_classes, mask_loss=mask_loss, loss_weight=loss_weight, vis_period=vis_period
        )
        self.strides = list(strides)
        self.num_levels = check_num_levels(num_levels, strides)
        self.train_num_points = train_num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.subdivision_num_points = subdivision_num_points
        # A step that predicts all pixels again ignores the mask before it: start after such steps.
        self.start_size, self.subdivision_steps = coarse_size, subdivision_steps
        while self.subdivision_steps and 4 * self.start_size**2 <= subdivision_num_points:
            self.start_size *= 2
            self.subdivision_steps -= 1
        channels = input_shape.channels * num_levels
        self.point_head = (
            PointMLP(channels, num_classes, fc_dim=point_fc_dim, num_fc=num_point_fc) if refine_points else None
        )
        self.coarse_head = roi_head(
            ShapeSpec(channels=channels, height=input_shape.height, width=input_shape.width),
            list(conv_dims)[-1],
            fc_dims=[fc_dim] * num_fc,
            output_shape=(num_classes, coarse_size, coarse_size),
        )

    def predict(self, x: dict[str, Tensor], boxes: list[Boxes]) -> CoarsePrediction:
        """Predicts the coarse masks."""
        maps = finest_maps(x, self.num_levels)
        coarse = self.coarse_head(grid_features(maps, self.strides, boxes, self.input_shape.height))
        return CoarsePrediction(maps, boxes, coarse)

    def point_logits(self, prediction: CoarsePrediction, coords: Tensor) -> Tensor:
        """Returns (R, num_classes, P) logits at points ``coords`` (R, P, 2), relative to the boxes."""
        assert self.point_head is not None
        fine = point_features(prediction.maps, self.strides, prediction.boxes, coords)
        logits: Tensor = self.point_head(fine, point_sample(prediction.coarse, coords, align_corners=False))
        return logits

    def uncertain_points(self, coarse: Tensor, classes: Tensor) -> Tensor:
        """Samples the points of a training step (arXiv:1912.08193, section 3.1).

        Args:
            coarse: (R, num_classes, S, S) logits.
            classes: (R,) int64.

        Returns:
            (R, train_num_points, 2), relative to the boxes.
        """
        with torch.no_grad():
            coords: Tensor = get_uncertain_point_coords_with_randomness(
                coarse,
                lambda logits: -select_class(logits, classes).abs()[:, None],
                self.train_num_points,
                self.oversample_ratio,
                self.importance_sample_ratio,
            )
        return coords

    def losses(self, prediction: CoarsePrediction, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask`` of the coarse masks and, with a point head, ``loss_mask_point``."""
        losses = {"loss_mask": self.grid_loss(prediction.coarse, instances)}
        if self.point_head is None:
            return losses
        classes = classes_of(instances)
        if not self.needs_masks:
            return {**losses, "loss_mask_point": supervised_point_loss(self, prediction, instances)}
        coords = self.uncertain_points(prediction.coarse, classes)
        logits = self.point_logits(prediction, coords)
        if len(logits) == 0:
            return {**losses, "loss_mask_point": empty_loss(logits)}
        labels, known = point_labels(instances, coords), known_points(instances, coords)
        loss = point_loss(select_class(logits, classes), labels, known)
        return {**losses, "loss_mask_point": loss}

    def probs(self, prediction: CoarsePrediction, classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S), S = coarse_size * 2 ** subdivision_steps, or coarse_size without a point head."""
        if self.point_head is None:
            return super().probs(prediction.coarse, classes)
        logits = subdivide(
            lambda coords: select_class(self.point_logits(prediction, coords), classes),
            prediction.coarse.shape[0],
            size=self.start_size,
            steps=self.subdivision_steps,
            num_points=self.subdivision_num_points,
            device=prediction.coarse.device,
        )
        return logits[:, None].sigmoid()
