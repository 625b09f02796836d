"""Semantic PointRend: a head for semantic segmentation that predicts the uncertain pixels of a coarse map again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
)
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.point_heads import PointMLP


def top_two_uncertainty(logits: Tensor) -> Tensor:
    """Returns (N, 1, ...): how close the second class is to the first, at most 0, for logits (N, K, ...) of K > 1 classes."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return (second - first)[:, None]


class PointRendSemSegHead(nn.Module):
    """PointRend for semantic segmentation (CVPR 2020, arXiv:1912.08193, section 5), on Detectron2's ``SemSegFPNHead``.

    It takes the arguments of ``SemSegFPNHead``, so that one override swaps it in Detectron2's Panoptic FPN, a Mask R-CNN with a semantic
    branch, and in its ``SemanticSegmentor``. Parameters have the names of Detectron2's ``projects/PointRend``: its checkpoints load. In a
    yacs config, use Detectron2's own head.

    Example::

        model.sem_seg_head._target_=maskrcnn_ext.PointRendSemSegHead
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | None = None,
        ignore_value: int = -1,
        point_features: Sequence[str] = ("p2",),
        point_fc_dim: int = 256,
        num_point_fc: int = 3,
        train_num_points: int = 1024,
        oversample_ratio: int = 3,
        importance_sample_ratio: float = 0.75,
        subdivision_num_points: int = 8192,
    ) -> None:
        """Builds the coarse head and the point head. The defaults are those of Detectron2's models for COCO.

        Args:
            input_shape: channels and stride of the feature maps.
            num_classes: two or more.
            conv_dims: channels of the coarse head.
            common_stride: stride of the coarse map in pixels of the image, a power of 2; inference doubles the map up to the image.
            loss_weight: factor of ``loss_sem_seg``, the loss of the coarse map.
            norm: of the coarse head's convolutions.
            ignore_value: class of the pixels that are not trained on.
            point_features: names of the feature maps whose features at a point are concatenated.
            point_fc_dim: outputs of the point head's hidden layers.
            num_point_fc: hidden layers of the point head.
            train_num_points: points per image in training.
            oversample_ratio: candidates for each point in training.
            importance_sample_ratio: share of uncertain points; the other points are random.
            subdivision_num_points: pixels that each step of inference predicts again.

        Raises:
            InputError: ``point_features`` has a name that ``input_shape`` lacks, or ``common_stride`` is no power of 2.
        """
        super().__init__()
        missing = [name for name in point_features if name not in input_shape]
        if missing:
            raise InputError(
                f"PointRendSemSegHead has no feature map {missing[0]}: set model.sem_seg_head.point_features to some of "
                f"{', '.join(input_shape)}"
            )
        self.subdivision_steps = common_stride.bit_length() - 1
        if common_stride != 1 << self.subdivision_steps:
            raise InputError(f"common_stride={common_stride} is no power of 2: set model.sem_seg_head.common_stride=4")
        self.ignore_value = ignore_value
        self.point_features = list(point_features)
        self.train_num_points = train_num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.subdivision_num_points = subdivision_num_points
        # By name: as its first argument, Detectron2 takes the mapping of a LazyConfig for a yacs config.
        self.coarse_sem_seg_head = SemSegFPNHead(
            input_shape=input_shape,
            num_classes=num_classes,
            conv_dims=conv_dims,
            common_stride=common_stride,
            loss_weight=loss_weight,
            norm=norm,
            ignore_value=ignore_value,
        )
        channels = sum(input_shape[name].channels for name in self.point_features)
        self.point_head = PointMLP(channels, num_classes, fc_dim=point_fc_dim, num_fc=num_point_fc)

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Returns (None, losses) in training, and (logits, {}) in inference.

        Args:
            features: maps (N, C, H_l, W_l).
            targets: (N, H, W) int64, the class of each pixel of the padded images; None in inference.

        Returns:
            ``loss_sem_seg`` and ``loss_sem_seg_point``, or logits (N, num_classes, H, W).
        """
        coarse = self.coarse_sem_seg_head.layers(features)
        if not self.training:
            return self.subdivide(features, coarse), {}
        assert targets is not None
        losses = self.coarse_sem_seg_head.losses(coarse, targets)
        return None, {**losses, "loss_sem_seg_point": self.point_loss(features, coarse, targets)}

    def point_logits(self, features: dict[str, Tensor], coarse: Tensor, coords: Tensor) -> Tensor:
        """Returns (N, num_classes, P) logits at ``coords`` (N, P, 2), x and y relative to the image, in [0, 1]."""
        fine = [point_sample(features[name], coords, align_corners=False) for name in self.point_features]
        logits: Tensor = self.point_head(torch.cat(fine, dim=1), point_sample(coarse, coords, align_corners=False))
        return logits

    def point_loss(self, features: dict[str, Tensor], coarse: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy at points where the coarse map is uncertain; zero if all of them are ignored."""
        with torch.no_grad():
            coords = get_uncertain_point_coords_with_randomness(
                coarse,
                top_two_uncertainty,
                self.train_num_points,
                self.oversample_ratio,
                self.importance_sample_ratio,
            )
            labels = point_sample(targets[:, None].float(), coords, mode="nearest", align_corners=False)[:, 0].long()
        logits = self.point_logits(features, coarse, coords).float()
        loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=self.ignore_value)
        return loss / (labels != self.ignore_value).sum().clamp(min=1)

    def subdivide(self, features: dict[str, Tensor], coarse: Tensor) -> Tensor:
        """Returns logits (N, num_classes, H, W): the coarse map doubled in steps, with its most uncertain pixels predicted again."""
        logits = coarse.float()
        for _ in range(self.subdivision_steps):
            logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
            indices, coords = get_uncertain_point_coords_on_grid(
                top_two_uncertainty(logits), self.subdivision_num_points
            )
            points = self.point_logits(features, coarse, coords).float()
            logits = logits.flatten(2).scatter(2, indices[:, None].expand_as(points), points).view_as(logits)
        return logits
