"""The modules that ``optimize`` knows. Subclasses are unknown: they may use their layers in another way."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2.layers import Conv2d, ROIAlign
from detectron2.modeling.anchor_generator import BufferList, DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.projects.point_rend.mask_head import ConvFCHead
from torch import nn

from maskrcnn_ext.compat import has_forward_hooks
from maskrcnn_ext.inference.optimization.convolution import is_fusible_conv, is_group_norm_conv
from maskrcnn_ext.inference.optimization.timm_nets import TracedTimmBackbone, is_known_transformer
from maskrcnn_ext.modeling.backbones.feature_pyramid import ChannelLayerNorm, SimpleFeaturePyramid
from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone
from maskrcnn_ext.modeling.box_predictor import BoxPredictor
from maskrcnn_ext.modeling.mask_heads.boundary import BoundaryMaskHead
from maskrcnn_ext.modeling.mask_heads.dct import DCTMaskHead
from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead
from maskrcnn_ext.modeling.mask_heads.mask_scoring import MaskScoringHead
from maskrcnn_ext.modeling.mask_heads.mlp import MLPMaskHead
from maskrcnn_ext.modeling.mask_heads.patch_dct import PatchDCTMaskHead
from maskrcnn_ext.modeling.mmdet_parts import MeanLogitCascadeROIHeads, MeanMaskHead
from maskrcnn_ext.modeling.partial_labels import PartialCascadeROIHeads, PartialRes5ROIHeads, PartialROIHeads
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.modeling.rpn import FastRPN

# Selection of RoIs and detections around heads that are only called.
ROI_HEADS = (
    StandardROIHeads,
    PartialROIHeads,
    CascadeROIHeads,
    PartialCascadeROIHeads,
    PartialRes5ROIHeads,
    MeanLogitCascadeROIHeads,
    Res5ROIHeads,
)
# Heads that are chains of layers, and compute nothing between them.
_CHAINS = (
    nn.Sequential,
    FPN,
    SimpleFeaturePyramid,
    BasicStem,
    LastLevelP6P7,
    StandardRPNHead,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    BoxPredictor,
    FCNMaskHead,
    KRCNNConvDeconvUpsampleHead,
    MaskRCNNConvUpsampleHead,
)
# Heads that compute between their layers, in float32.
_FLOAT32_CALLERS = (BoundaryMaskHead, ConvFCHead, DCTMaskHead, MaskScoringHead, MLPMaskHead, PatchDCTMaskHead)
_BF16 = {
    *_CHAINS,
    *ROI_HEADS,
    MeanMaskHead,
    ResNet,
    BasicBlock,
    BottleneckBlock,
    LastLevelMaxPool,
    FastRPN,
    DefaultAnchorGenerator,
    BufferList,
    ROIPooler,
    FastROIPooler,
    ROIAlign,
    nn.ModuleList,
    nn.Linear,
    nn.ConvTranspose2d,
    nn.Flatten,
    nn.Identity,
    nn.ReLU,
}


def only_calls_layers(module: nn.Module) -> bool:
    """Whether a module only calls the layers that are its direct children, so that they can be replaced. Others may read the weights."""
    return type(module) in (*_CHAINS, *_FLOAT32_CALLERS)


def needs_autocast(backbone: nn.Module) -> bool:
    """Whether a backbone has layers that are known in bf16, but not replaced."""
    return any(type(module) in (TracedTimmBackbone, TimmBackbone, ChannelLayerNorm) for module in backbone.modules())


def unknown_in_bf16(part: nn.Module) -> Iterator[str]:
    """Yields the names of the classes in a part of a model that may not work in bf16, because they are unknown or compute in float32."""
    if _is_known_conv(part) or type(part) is TracedTimmBackbone or is_known_transformer(part):
        return
    if type(part) not in _BF16 or has_forward_hooks(part):
        norm = getattr(part, "norm", None)
        yield type(part).__name__ + (f" with {type(norm).__name__}" if norm is not None else "")
        return
    for child in part.children():
        is_replaced = only_calls_layers(part) and is_group_norm_conv(child)
        if not is_replaced or any(map(has_forward_hooks, child.modules())):
            yield from unknown_in_bf16(child)


def _is_known_conv(part: nn.Module) -> bool:
    """Whether a part is a convolution that is known with its norm."""
    has_known_norm = type(part) in (Conv2d, nn.Conv2d) and (
        is_fusible_conv(part) or type(getattr(part, "norm", None)) is ChannelLayerNorm
    )
    return has_known_norm and not has_forward_hooks(part)
