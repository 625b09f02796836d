"""The head of RefineMask: it refines a 14 x 14 mask to 112 x 112 in three stages, with features of the finest map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.modeling.mask_heads.base import MaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import classes_of, log_accuracy, log_images, target_masks
from maskrcnn_ext.modeling.mask_heads.layers import conv, conv_stack, deconv, predictor, roi_align, roi_align_finest
from maskrcnn_ext.modeling.mask_heads.losses import check_mask_loss, mask_loss_value
from maskrcnn_ext.modeling.mask_heads.semantic_branch import SemanticBranch, semantic_loss, semantic_target
from maskrcnn_ext.ops.boundary import boundary_region, double_region, merge_at_boundary

# Weights of the losses at side 14, 28, 56 and 112, as in the paper (arXiv:2104.08569).
STAGE_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
# In pixels of the coarser mask: training covers one pixel more than what is replaced in the mask.
TRAINED_WIDTH = 2
MERGED_WIDTH = 1
# A narrower layer may lose all its channels to ReLU.
MIN_DIM = 8


class RefinePrediction(NamedTuple):
    """Inputs of the refinement, except the classes of the RoIs."""

    features: Tensor  # (R, C, S, S), S: side of the coarsest mask
    semantic: list[Tensor]  # for each stage (R, D_k + 1, 2^k S, 2^k S), the semantic mask last
    semantic_logits: Tensor  # (N, H, W) of the whole images


def boundary_aware_loss(logits: Tensor, targets: Tensor, region: Tensor) -> Tensor:
    """Returns the mean binary cross-entropy over the pixels of ``region`` of all RoIs together (arXiv:2104.08569, section 3).

    Args:
        logits: (R, S, S).
        targets: (R, S, S), 0 or 1.
        region: (R, S, S) boolean; if it is empty, the loss is zero.

    Returns:
        A scalar, float32.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    return (losses * region).sum() / region.sum().clamp(min=1)


def trained_region(coarse_logits: Tensor, coarse_targets: Tensor) -> Tensor:
    """Returns where a stage is trained: near the boundaries of the previous stage's mask and of its target, at twice their size.

    Args:
        coarse_logits: (R, S, S); above 0 is foreground.
        coarse_targets: (R, S, S), 0 or 1.

    Returns:
        (R, 2 S, 2 S) boolean.
    """
    predicted = boundary_region(coarse_logits > 0, TRAINED_WIDTH)
    return double_region(predicted | boundary_region(coarse_targets, TRAINED_WIDTH))


def select_class_logits(layer: Conv2d, features: Tensor, classes: Tensor) -> Tensor:
    """Returns the channel of each RoI's class in ``layer(features)`` without computing the others.

    Args:
        layer: a 1 x 1 convolution to K classes, or to one if the masks are class-agnostic.
        features: (R, C, S, S).
        classes: (R,) int64.

    Returns:
        (R, S, S)
    """
    index = classes if layer.out_channels > 1 else torch.zeros_like(classes)
    weight = layer.weight.flatten(1)[index]
    return torch.einsum("rc,rchw->rhw", weight, features) + layer.bias[index][:, None, None]


class SemanticFusion(nn.Module):
    """One stage of refinement: the Semantic Fusion Module and the upsampling after it (arXiv:2104.08569, section 3).

    Of the three parallel 3 x 3 convolutions, the dilated ones (3 and 5) are depthwise here. The paper adds the masks again and upsamples
    bilinearly after a 1 x 1 convolution; here a 2 x 2 transposed convolution does both.
    """

    def __init__(self, in_channels: int, semantic_channels: int, dim: int, *, norm: str = "") -> None:
        """Builds the stage.

        Args:
            in_channels: channels of the instance features.
            semantic_channels: channels of the semantic features, without the mask.
            dim: channels inside and after the stage.
            norm: norm of the convolutions, a name that :func:`detectron2.layers.get_norm` knows.
        """
        super().__init__()
        self.reduce = conv(in_channels + semantic_channels + 2, dim, kernel_size=1, norm=norm)
        self.branches = nn.ModuleList(
            [
                conv(dim, dim, norm=norm),
                depthwise_conv(dim, dilation=3, norm=norm),
                depthwise_conv(dim, dilation=5, norm=norm),
            ]
        )
        self.upsample = deconv(dim + 2, dim)

    def forward(self, features: Tensor, semantic: Tensor, mask: Tensor) -> Tensor:
        """Returns (R, dim, 2 S, 2 S).

        Args:
            features: (R, in_channels, S, S).
            semantic: (R, semantic_channels + 1, S, S), the semantic mask last.
            mask: (R, 1, S, S) in [0, 1], of the RoI's class.
        """
        x = self.reduce(torch.cat([features, semantic, mask], dim=1))
        x = sum(branch(x) for branch in self.branches)
        upsampled: Tensor = self.upsample(torch.cat([x, semantic[:, -1:], mask], dim=1))
        return upsampled


def depthwise_conv(dim: int, *, dilation: int, norm: str = "") -> Conv2d:
    """Returns a 3 x 3 convolution of each channel, with norm and ReLU."""
    layer = Conv2d(
        dim,
        dim,
        kernel_size=3,
        padding=dilation,
        dilation=dilation,
        groups=dim,
        bias=not norm,
        norm=get_norm(norm, dim),
        activation=nn.ReLU(),
    )
    # fan_in: with groups, fan_out would make the weights too small.
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class RefineMaskHead(MaskHead):
    """Mask head with fine-grained features (RefineMask, CVPR 2021, arXiv:2104.08569, section 3), at a fraction of its cost.

    Three stages refine a mask of side 14 to 112. The inputs of a stage are the features and the mask of the stage before it, and features
    and mask of a :class:`.semantic_branch.SemanticBranch` on the finest map, pooled at the size of the stage. From side 56 on, a stage is
    trained, and replaces the mask before it, only near the boundary. The masks are per class. A stage computes only the class of the RoI
    (the ground truth in training), because 80 classes of 112 x 112 would fill the memory. Therefore the refinement runs in :meth:`losses`
    and :meth:`probs`, where the classes are known.

    Differences to the paper: the cheaper layers of :class:`.semantic_branch.SemanticBranch` and :class:`SemanticFusion`; and a stage takes
    the merged mask as its input, because the mask of the stage before it is untrained away from the boundary.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.RefineMaskHead model.roi_heads.mask_pooler=null
    """

    takes_roi_features = False
    takes_pyramid = True

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        strides: Sequence[int] = (4, 8, 16, 32),
        semantic_dim: int | None = None,
        semantic_loss_weight: float = 1.0,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers. See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            input_shape: channels of the feature maps; height is the side of the RoI features and of the coarsest mask.
            conv_dims: channels of the 3 x 3 convolutions before the coarsest mask. The stages have a half, a quarter and an eighth of the
                last entry.
            conv_norm: norm of the convolutions; GN needs widths that are multiples of 32.
            strides: of the feature maps in pixels of the input image, finest first.
            semantic_dim: channels of the semantic branch; None for a quarter of the last of ``conv_dims``.
            semantic_loss_weight: factor of ``loss_semantic``.
            mask_loss: of the two coarser masks, see :class:`.base.GridMaskHead`; the finer two use :func:`boundary_aware_loss`.

        Raises:
            InputError: an unknown mask loss.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        self.strides = list(strides)
        self.semantic_loss_weight = semantic_loss_weight
        self.mask_loss = check_mask_loss(mask_loss)
        channels, dims = input_shape.channels, list(conv_dims)
        if semantic_dim is None:
            semantic_dim = max(dims[-1] // 4, MIN_DIM)
        count = len(STAGE_WEIGHTS) - 1
        semantic_dims = [max(semantic_dim >> stage, MIN_DIM) for stage in range(count)]
        feature_dims = [dims[-2] if len(dims) > 1 else channels]
        feature_dims += [max(dims[-1] >> stage, MIN_DIM) for stage in range(1, count + 1)]
        self.mask_fcn = conv_stack(channels, dims[:-1], norm=conv_norm)
        self.semantic_branch = SemanticBranch(channels, semantic_dim, semantic_dims, norm=conv_norm)
        self.stages = nn.ModuleList(
            [
                SemanticFusion(feature_dims[stage], semantic_dims[stage], feature_dims[stage + 1], norm=conv_norm)
                for stage in range(count)
            ]
        )
        # With the usual 0.001, so few channels give logits that hardly leave zero, and gradients that hardly reach the stages.
        self.predictors = nn.ModuleList([predictor(dim, num_classes, std=dim**-0.5) for dim in feature_dims])

    def predict(self, x: dict[str, Tensor], boxes: list[Boxes]) -> RefinePrediction:
        """Runs the semantic branch on the images and the first convolutions on the RoIs."""
        size = self.input_shape.height
        features = self.mask_fcn(roi_align(x, self.strides, boxes, size))
        logits, maps = self.semantic_branch(next(iter(x.values())))
        semantic = [
            roi_align_finest({"semantic": level}, self.strides, boxes, size << stage)
            for stage, level in enumerate(maps)
        ]
        return RefinePrediction(features, semantic, logits)

    def refine(self, prediction: RefinePrediction, classes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Runs the stages.

        Args:
            prediction: returned by :meth:`predict`.
            classes: (R,) int64.

        Returns:
            Four tensors of logits (R, S, S), S from 14 to 112: what the stages predict, and the masks that are merged from them.
        """
        x = prediction.features
        logits = [select_class_logits(self.predictors[0], x, classes)]
        merged = logits[:]
        for stage, fusion in enumerate(self.stages):
            x = fusion(x, prediction.semantic[stage], merged[-1].sigmoid()[:, None])
            fine = select_class_logits(self.predictors[stage + 1], x, classes)
            logits.append(fine)
            # The first stage is trained on its whole grid, so that its mask needs no merging.
            merged.append(fine if stage == 0 else merge_at_boundary(merged[-1], fine, MERGED_WIDTH))
        return logits, merged

    def losses(self, prediction: RefinePrediction, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask``, the weighted sum over the stages, and ``loss_semantic``."""
        logits, merged = self.refine(prediction, classes_of(instances))
        height, width = prediction.semantic_logits.shape[1:]
        target = semantic_target(instances, height, width, self.strides[0])
        loss_semantic = semantic_loss(prediction.semantic_logits, target) * self.semantic_loss_weight
        if len(merged[-1]) == 0:
            loss_mask = torch.stack([empty_loss(stage) for stage in logits]).sum()
        else:
            loss_mask = self.stage_losses(logits, merged, target_masks(instances, merged[-1].shape[-1]))
        return {"loss_mask": loss_mask, "loss_semantic": loss_semantic}

    def stage_losses(self, logits: list[Tensor], merged: list[Tensor], targets: Tensor) -> Tensor:
        """Returns the weighted sum of the stages' losses; writes the scalars and pictures of the finest mask.

        Args:
            logits: as :meth:`refine` returns them.
            merged: as :meth:`refine` returns them.
            targets: (R, S, S) boolean, S the finest side; the coarser targets are computed from them.
        """
        log_accuracy(merged[-1] > 0, targets)
        log_images(merged[-1].sigmoid(), targets, self.vis_period)
        pyramid = [F.adaptive_avg_pool2d(targets.float(), stage.shape[-1]) >= 0.5 for stage in logits]
        losses = [
            mask_loss_value(self.mask_loss, stage, target)
            for stage, target in zip(logits[:2], pyramid[:2], strict=True)
        ]
        losses += [
            boundary_aware_loss(logits[stage], pyramid[stage], trained_region(merged[stage - 1], pyramid[stage - 1]))
            for stage in range(2, len(logits))
        ]
        return torch.stack([loss * weight for loss, weight in zip(losses, STAGE_WEIGHTS, strict=True)]).sum()

    def probs(self, prediction: RefinePrediction, classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S), S the finest side."""
        return self.refine(prediction, classes)[1][-1][:, None].sigmoid()
