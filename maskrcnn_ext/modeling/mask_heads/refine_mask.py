"""RefineMask in its light form: it refines a 14 x 14 mask to 112 x 112 in three stages, with features of the finest map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.common.ranges import is_at_least
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.base import MaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import (
    classes_of,
    known_pixels,
    log_accuracy,
    log_images,
    target_masks,
)
from maskrcnn_ext.modeling.mask_heads.layers import conv_stack, predictor, roi_align, roi_align_finest
from maskrcnn_ext.modeling.mask_heads.losses import check_mask_loss, mask_loss_value
from maskrcnn_ext.modeling.mask_heads.refine_stages import SemanticFusion
from maskrcnn_ext.modeling.mask_heads.semantic_branch import (
    SemanticBranch,
    known_map_pixels,
    narrow_convs,
    semantic_loss,
    semantic_target,
)
from maskrcnn_ext.ops.boundary import boundary_region, double_region, merge_at_boundary

# Weights of the losses at side 14, 28, 56 and 112, as in the paper (arXiv:2104.08569).
STAGE_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
# In pixels of the coarser mask: the width of the boundary that is replaced. Training covers more, see `boundary_width`.
MERGED_WIDTH = 1
# A narrower layer may lose all its channels to ReLU.
MIN_DIM = 8


class RefinePrediction(NamedTuple):
    """Inputs of the refinement, except the classes of the RoIs."""

    features: Tensor  # (R, C, S, S), S: side of the coarsest mask
    semantic: list[Tensor]  # for each stage (R, D_k, 2^k S, 2^k S); with a semantic mask, it is the last channel
    semantic_logits: Tensor | None  # (N, H, W) of the whole images, None for a head without semantic loss


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


def trained_region(coarse_logits: Tensor, coarse_targets: Tensor, width: int) -> Tensor:
    """Returns where a stage is trained: near the boundaries of the previous stage's mask and of its target, at twice their size.

    Args:
        coarse_logits: (R, S, S); from 0 on is foreground.
        coarse_targets: (R, S, S), 0 or 1.
        width: of the boundaries in pixels, see :func:`.boundary_region`.

    Returns:
        (R, 2 S, 2 S) boolean.
    """
    return double_region(boundary_region(coarse_logits >= 0, width) | boundary_region(coarse_targets, width))


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


class StagedMaskHead(MaskHead):
    """Base class of the forms of RefineMask: the refinement by ``stages`` and ``predictors``, which a subclass builds, and the losses.

    A stage computes only the class of the RoI (the ground truth in training), because 80 classes of 112 x 112 would fill the memory.
    Therefore the refinement runs in :meth:`losses` and :meth:`probs`, where the classes are known.
    """

    takes_roi_features = False
    takes_pyramid = True
    stages: nn.ModuleList
    predictors: nn.ModuleList

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        strides: Sequence[int],
        stage_weights: Sequence[float],
        boundary_width: int,
        start_stage: int,
        merged_input: bool,
        mask_loss: str,
        semantic_loss_weight: float = 1.0,
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Stores the arguments of every form of RefineMask, beside those of :class:`.base.MaskHead`.

        Args:
            input_shape: channels of the feature maps; height is the side of the RoI features and of the coarsest mask.
            num_classes: see :class:`.base.MaskHead`.
            strides: of the feature maps in pixels of the input image, finest first.
            stage_weights: factors of the losses of the masks, coarsest first.
            boundary_width: of the regions where the finer masks are trained, in pixels of the mask before, see :func:`.boundary_region`.
            start_stage: the last mask, from 0, that is trained on its whole grid and replaces the one before it everywhere.
            merged_input: whether a stage takes the merged mask as its input, instead of the prediction of the stage before it.
            mask_loss: of the masks up to ``start_stage``, see :class:`.base.GridMaskHead`; the others use :func:`boundary_aware_loss`.
            semantic_loss_weight: factor of ``loss_semantic``, for a head that has one.
            loss_weight: see :class:`.base.MaskHead`.
            vis_period: see :class:`.base.MaskHead`.

        Raises:
            InputError: an unknown mask loss, not four stage weights, a start stage without a mask, or no boundary.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        if len(stage_weights) != len(STAGE_WEIGHTS):
            raise InputError(
                f"{type(self).__name__} has four masks and {len(stage_weights)} weights of their losses: set "
                "model.roi_heads.mask_head.stage_weights=[0.25,0.5,0.75,1.0] or other four"
            )
        if not 0 <= start_stage < len(STAGE_WEIGHTS):
            raise InputError(f"start_stage={start_stage}: set model.roi_heads.mask_head.start_stage to 0, 1, 2 or 3")
        if not is_at_least(boundary_width, 1):
            raise InputError(
                f"boundary_width={boundary_width}: set model.roi_heads.mask_head.boundary_width to 1 or more"
            )
        self.strides = list(strides)
        self.stage_weights = list(stage_weights)
        self.boundary_width = boundary_width
        self.start_stage = start_stage
        self.merged_input = merged_input
        self.mask_loss = check_mask_loss(mask_loss)
        self.semantic_loss_weight = semantic_loss_weight

    def class_logits(self, stage: int, features: Tensor, classes: Tensor) -> Tensor:
        """Returns the logits (R, S, S) of mask ``stage``, from 0, for the classes (R,) int64."""
        return select_class_logits(self.predictors[stage], features, classes)

    def refine(self, prediction: RefinePrediction, classes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Runs the stages.

        Args:
            prediction: returned by :meth:`predict`.
            classes: (R,) int64.

        Returns:
            Four tensors of logits (R, S, S), S from 14 to 112: the predictions of the stages, and the masks that are merged from them.
        """
        x = prediction.features
        logits = [self.class_logits(0, x, classes)]
        merged = logits[:]
        for stage, fusion in enumerate(self.stages, start=1):
            mask = (merged if self.merged_input else logits)[-1]
            x = fusion(x, prediction.semantic[stage - 1], mask.sigmoid()[:, None])
            fine = self.class_logits(stage, x, classes)
            logits.append(fine)
            # Up to the start stage a mask is trained on its whole grid and needs no merging.
            merged.append(fine if stage <= self.start_stage else merge_at_boundary(merged[-1], fine, MERGED_WIDTH))
        return logits, merged

    def losses(self, prediction: RefinePrediction, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask``, the weighted sum over the stages, and ``loss_semantic`` if there are semantic logits."""
        logits, merged = self.refine(prediction, classes_of(instances))
        if len(merged[-1]) == 0:
            loss_mask = torch.stack([empty_loss(stage) for stage in logits]).sum()
        else:
            targets = [target_masks(instances, stage.shape[-1]) for stage in logits]
            known = [known_pixels(instances, stage.shape[-1]) for stage in logits]
            loss_mask = self.stage_losses(logits, merged, targets, known)
        losses = {"loss_mask": loss_mask}
        if prediction.semantic_logits is not None:
            height, width = prediction.semantic_logits.shape[1:]
            target = semantic_target(instances, height, width, self.strides[0])
            known_map = known_map_pixels(instances, height, width, self.strides[0])
            loss = semantic_loss(prediction.semantic_logits, target, known_map)
            losses["loss_semantic"] = loss * self.semantic_loss_weight
        return losses

    def stage_losses(
        self, logits: list[Tensor], merged: list[Tensor], targets: list[Tensor], known: Sequence[Tensor | None]
    ) -> Tensor:
        """Returns the weighted sum of the stages' losses; writes the scalars and pictures of the finest mask.

        Args:
            logits: as :meth:`refine` returns them.
            merged: as :meth:`refine` returns them.
            targets: of the same sizes, (R, S, S) boolean.
            known: the pixels that count, of the same sizes, (R, S, S) boolean; None for all.
        """
        log_accuracy(merged[-1] > 0, targets[-1])
        log_images(merged[-1].sigmoid(), targets[-1], self.vis_period)
        losses = []
        for stage, (stage_logits, target, counted) in enumerate(zip(logits, targets, known, strict=True)):
            if stage <= self.start_stage:
                losses.append(mask_loss_value(self.mask_loss, stage_logits, target, counted))
            else:
                region = trained_region(merged[stage - 1], targets[stage - 1], self.boundary_width)
                if counted is not None:
                    region &= counted
                losses.append(boundary_aware_loss(stage_logits, target, region))
        return torch.stack([loss * weight for loss, weight in zip(losses, self.stage_weights, strict=True)]).sum()

    def probs(self, prediction: RefinePrediction, classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S), S the finest side."""
        return self.refine(prediction, classes)[1][-1][:, None].sigmoid()


def pool_semantic(
    head: StagedMaskHead, maps: list[Tensor], boxes: list[Boxes], *, sampling_ratio: int = 0
) -> list[Tensor]:
    """Returns each stage's semantic map (N, D_k, H, W) pooled at the size of the stage: (R, D_k, 2^k S, 2^k S)."""
    size = head.input_shape.height
    return [
        roi_align_finest({"semantic": level}, head.strides, boxes, size << stage, sampling_ratio=sampling_ratio)
        for stage, level in enumerate(maps)
    ]


class RefineMaskHead(StagedMaskHead):
    """Mask head with fine-grained features (RefineMask, CVPR 2021, arXiv:2104.08569, section 3), at a fraction of its cost.

    Three stages refine a mask of side 14 to 112. The inputs of a stage are the features and the mask of the stage before it, and features
    and mask of a :class:`.semantic_branch.SemanticBranch` on the finest map, pooled at the size of the stage. From side 56 on, a stage is
    trained, and replaces the mask before it, only near the boundary. The masks are per class.

    Differences to the paper, which :class:`.full_refine_mask.FullRefineMaskHead` has not: the cheaper layers of
    :func:`.semantic_branch.narrow_convs` and :class:`.refine_stages.SemanticFusion`; and a stage takes the merged mask as its input,
    because the mask of the stage before it is untrained away from the boundary.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.RefineMaskHead model.roi_heads.mask_pooler=null
    """

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
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
        boundary_width: int = 2,
        start_stage: int = 1,
        merged_input: bool = True,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers. See :class:`StagedMaskHead` for the other arguments.

        Args:
            conv_dims: channels of the 3 x 3 convolutions before the coarsest mask. The stages have a half, a quarter and an eighth of the
                last entry.
            conv_norm: norm of the convolutions; GN needs widths that are multiples of 32.
            semantic_dim: channels of the semantic branch; None for a quarter of the last of ``conv_dims``.
        """
        super().__init__(
            input_shape,
            num_classes=num_classes,
            strides=strides,
            stage_weights=stage_weights,
            boundary_width=boundary_width,
            start_stage=start_stage,
            merged_input=merged_input,
            mask_loss=mask_loss,
            semantic_loss_weight=semantic_loss_weight,
            loss_weight=loss_weight,
            vis_period=vis_period,
        )
        channels, dims = input_shape.channels, list(conv_dims)
        if semantic_dim is None:
            semantic_dim = max(dims[-1] // 4, MIN_DIM)
        count = len(STAGE_WEIGHTS) - 1
        semantic_dims = [max(semantic_dim >> stage, MIN_DIM) for stage in range(count)]
        feature_dims = [dims[-2] if len(dims) > 1 else channels]
        feature_dims += [max(dims[-1] >> stage, MIN_DIM) for stage in range(1, count + 1)]
        self.mask_fcn = conv_stack(channels, dims[:-1], norm=conv_norm)
        self.semantic_branch = SemanticBranch(
            narrow_convs(channels, semantic_dim, norm=conv_norm), semantic_dim, semantic_dims
        )
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
        features = self.mask_fcn(roi_align(x, self.strides, boxes, self.input_shape.height))
        logits, maps = self.semantic_branch(next(iter(x.values())))
        return RefinePrediction(features, pool_semantic(self, maps, boxes), logits)
