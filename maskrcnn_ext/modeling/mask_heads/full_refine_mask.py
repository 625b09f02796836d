"""RefineMask with the layers of its paper, and the faster variant that its authors published later."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.mask_heads.layers import conv, conv_stack, predictor, roi_align
from maskrcnn_ext.modeling.mask_heads.refine_mask import (
    MIN_DIM,
    STAGE_WEIGHTS,
    RefinePrediction,
    StagedMaskHead,
    pool_semantic,
)
from maskrcnn_ext.modeling.mask_heads.refine_stages import FullSemanticFusion, SimpleSemanticFusion
from maskrcnn_ext.modeling.mask_heads.semantic_branch import SemanticBranch
from maskrcnn_ext.ops.boundary import double_mask

INSTANCE_CONVS, SEMANTIC_CONVS = 2, 4


def _stage_dims(width: int) -> list[int]:
    """Returns the channels of the instance features at each mask: 256, 128, 64 and 32 in the paper."""
    return [max(width >> stage, MIN_DIM) for stage in range(len(STAGE_WEIGHTS))]


def _predictors(dims: Sequence[int], num_classes: int, *, last_class_agnostic: bool) -> nn.ModuleList:
    """Returns the 1 x 1 convolutions to logits, small enough that the losses start near ln 2; the authors' start at 71."""
    classes = [num_classes] * len(dims)
    if last_class_agnostic:
        classes[-1] = 1
    return nn.ModuleList([predictor(dim, count, std=dim**-0.5) for dim, count in zip(dims, classes, strict=True)])


class FullRefineMaskHead(StagedMaskHead):
    """RefineMask with all layers of its paper and code (CVPR 2021, arXiv:2104.08569, section 3).

    The stages of side 14, 28 and 56 have 256, 128 and 64 channels, and three dense convolutions of dilation 1, 3 and 5 fuse them. The
    semantic branch has four 3 x 3 convolutions of 256 channels. :class:`.refine_mask.RefineMaskHead` is the light form. The authors train
    it with box losses times 2 and gradients clipped at a norm of 35: ``mask_rcnn_r50_fpn_refinemask_1x.py``.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.FullRefineMaskHead model.roi_heads.mask_pooler=null
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
        semantic_loss_weight: float = 1.0,
        stage_weights: Sequence[float] = STAGE_WEIGHTS,
        boundary_width: int = 2,
        start_stage: int = 1,
        merged_input: bool = False,
        last_class_agnostic: bool = False,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers. See :class:`.refine_mask.StagedMaskHead` for the other arguments.

        Args:
            conv_dims: the last entry is the width of the instance and of the semantic convolutions, which each stage halves. There are two
                instance convolutions, for any number of entries.
            conv_norm: norm of the convolutions; none in the paper.
            last_class_agnostic: whether the finest mask is the same for all classes, as the authors have it for the 1203 of LVIS.
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
        channels, width = input_shape.channels, list(conv_dims)[-1]
        dims = _stage_dims(width)
        self.mask_fcn = conv_stack(channels, [width] * INSTANCE_CONVS, norm=conv_norm)
        convs = conv_stack(channels, [width] * SEMANTIC_CONVS, norm=conv_norm)
        self.semantic_branch = SemanticBranch(convs, width, dims[:-1])
        self.stages = nn.ModuleList(
            [FullSemanticFusion(dim, out_dim, norm=conv_norm) for dim, out_dim in pairwise(dims)]
        )
        self.predictors = _predictors(dims, num_classes, last_class_agnostic=last_class_agnostic)

    def predict(self, x: dict[str, Tensor], boxes: list[Boxes]) -> RefinePrediction:
        """Runs the semantic branch on the images and the first convolutions on the RoIs."""
        features = self.mask_fcn(roi_align(x, self.strides, boxes, self.input_shape.height))
        logits, maps = self.semantic_branch(next(iter(x.values())))
        return RefinePrediction(features, pool_semantic(self, maps, boxes), logits)


class SimpleRefineMaskHead(StagedMaskHead):
    """The faster RefineMask of its authors' code (``r50-refinemask-1x-faster-better``), after the paper (arXiv:2104.08569).

    As :class:`FullRefineMaskHead`, but there is no semantic mask and no loss for it, a bin of the semantic features is one sample, and each
    stage adds the mean of the RoI. The finest mask is the same for all classes, and its logits are computed at side 56 and enlarged.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.SimpleRefineMaskHead model.roi_heads.mask_pooler=null
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
        stage_weights: Sequence[float] = (0.5, 0.75, 0.75, 1.0),
        boundary_width: int = 2,
        start_stage: int = 1,
        merged_input: bool = False,
        last_class_agnostic: bool = True,
        enlarge_last_features: bool = False,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers. See :class:`.refine_mask.StagedMaskHead` for the other arguments.

        Args:
            conv_dims: see :class:`FullRefineMaskHead`.
            conv_norm: see :class:`FullRefineMaskHead`.
            last_class_agnostic: whether the finest mask is the same for all classes.
            enlarge_last_features: whether the last stage enlarges its features before it predicts, instead of its logits.
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
            loss_weight=loss_weight,
            vis_period=vis_period,
        )
        self.enlarge_last_features = enlarge_last_features
        channels, width = input_shape.channels, list(conv_dims)[-1]
        dims = _stage_dims(width)
        last = len(dims) - 2
        self.mask_fcn = conv_stack(channels, [width] * INSTANCE_CONVS, norm=conv_norm)
        self.semantic_convs = conv_stack(channels, [width] * SEMANTIC_CONVS, norm=conv_norm)
        self.reductions = nn.ModuleList([conv(width, dim, kernel_size=1) for dim in dims[:-1]])
        self.stages = nn.ModuleList(
            [
                SimpleSemanticFusion(
                    dim, dims[stage + 1], enlarge=stage < last or enlarge_last_features, norm=conv_norm
                )
                for stage, dim in enumerate(dims[:-1])
            ]
        )
        self.predictors = _predictors(dims, num_classes, last_class_agnostic=last_class_agnostic)

    def predict(self, x: dict[str, Tensor], boxes: list[Boxes]) -> RefinePrediction:
        """Runs the semantic convolutions on the images and the first convolutions on the RoIs."""
        features = self.mask_fcn(roi_align(x, self.strides, boxes, self.input_shape.height))
        semantic = self.semantic_convs(next(iter(x.values())))
        # float32: see SemanticBranch.
        maps = [reduction(semantic).float() for reduction in self.reductions]
        return RefinePrediction(features, pool_semantic(self, maps, boxes, sampling_ratio=1), None)

    def class_logits(self, stage: int, features: Tensor, classes: Tensor) -> Tensor:
        """Returns the logits (R, S, S) of mask ``stage``; the finest are enlarged unless the features have been."""
        logits = super().class_logits(stage, features, classes)
        return logits if stage < len(self.stages) or self.enlarge_last_features else double_mask(logits)
