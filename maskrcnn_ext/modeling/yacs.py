"""Mask heads, FastRPN, RoI heads and timm's backbones for yacs configs: entries in Detectron2's registries, and the keys that they read.

Detectron2 is imported inside functions only, because the plugin hook runs while Detectron2 is still being imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.modeling.parts import MASK_HEADS, Part

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn


def registered_name(part: Part) -> str:
    """Returns the name for ``MODEL.ROI_MASK_HEAD.NAME``: the class name, with "Ext" before names that Detectron2's PointRend uses."""
    return f"Ext{part.name}" if part.name.endswith("PointRendMaskHead") else part.name


def _builder(part: Part) -> Callable[..., nn.Module]:
    def build(cfg: CfgNode, input_shape: Any) -> nn.Module:
        head: nn.Module = part.load()(cfg, input_shape)
        return head

    build.__name__ = registered_name(part)
    build.__doc__ = f"Builds a {part.name} from a yacs config."
    return build


def register_mask_heads() -> None:
    """Registers every mask head in Detectron2 under :func:`registered_name`. Idempotent; imports no head."""
    from detectron2.modeling import ROI_MASK_HEAD_REGISTRY

    for part in MASK_HEADS:
        if registered_name(part) not in ROI_MASK_HEAD_REGISTRY:
            ROI_MASK_HEAD_REGISTRY.register(_builder(part))


def register_rpn() -> None:
    """Registers FastRPN in Detectron2, for ``MODEL.PROPOSAL_GENERATOR.NAME``. Idempotent; does not import FastRPN."""
    from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY

    def build(cfg: CfgNode, input_shape: Any) -> nn.Module:
        from maskrcnn_ext.modeling.rpn import FastRPN

        return FastRPN(cfg, input_shape)

    build.__name__ = "FastRPN"
    if build.__name__ not in PROPOSAL_GENERATOR_REGISTRY:
        PROPOSAL_GENERATOR_REGISTRY.register(build)


def register_roi_heads() -> None:
    """Registers PartialROIHeads, its other forms and BoxPredictorROIHeads in Detectron2, for ``MODEL.ROI_HEADS.NAME``.

    Detectron2 has no registry of box predictors. BoxPredictorROIHeads are its StandardROIHeads with a
    :class:`maskrcnn_ext.BoxPredictor`. Idempotent; imports none of them.
    """
    from detectron2.modeling import ROI_HEADS_REGISTRY

    def builder(name: str) -> Callable[..., nn.Module]:
        def build(cfg: CfgNode, input_shape: Any) -> nn.Module:
            from maskrcnn_ext.modeling import partial_labels

            heads: nn.Module = getattr(partial_labels, name)(cfg, input_shape)
            return heads

        build.__name__ = name
        return build

    def build_with_box_predictor(cfg: CfgNode, input_shape: Any) -> nn.Module:
        from detectron2.modeling.roi_heads import StandardROIHeads

        from maskrcnn_ext.modeling.box_predictor import BoxPredictor, check_box_predictor

        heads: nn.Module = StandardROIHeads(cfg, input_shape)
        heads.box_predictor = BoxPredictor(cfg, heads.box_head.output_shape)
        check_box_predictor(heads)
        return heads

    build_with_box_predictor.__name__ = "BoxPredictorROIHeads"
    partial = map(builder, ("PartialROIHeads", "PartialCascadeROIHeads", "PartialRes5ROIHeads"))
    for build in (*partial, build_with_box_predictor):
        if build.__name__ not in ROI_HEADS_REGISTRY:
            ROI_HEADS_REGISTRY.register(build)


def register_backbones() -> None:
    """Registers TimmFPN and TimmSimpleFeaturePyramid in Detectron2, for ``MODEL.BACKBONE.NAME``. Idempotent; does not import timm.

    They are a TimmBackbone with an FPN, or with the pyramid of ViTDet for plain ViTs.
    """
    from detectron2.modeling import BACKBONE_REGISTRY

    def builder(name: str) -> Callable[..., nn.Module]:
        def build(cfg: CfgNode, input_shape: Any) -> nn.Module:
            from detectron2.modeling.backbone import FPN
            from detectron2.modeling.backbone.fpn import LastLevelMaxPool

            from maskrcnn_ext.modeling.backbones.feature_pyramid import SimpleFeaturePyramid
            from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone

            settings = cfg.MODEL.FPN
            pyramid = FPN if name == "TimmFPN" else SimpleFeaturePyramid
            return pyramid(
                TimmBackbone(cfg, input_shape),
                settings.IN_FEATURES,
                settings.OUT_CHANNELS,
                norm=settings.NORM,
                top_block=LastLevelMaxPool(),
                fuse_type=settings.FUSE_TYPE,
            )

        build.__name__ = name
        return build

    for build in map(builder, ("TimmFPN", "TimmSimpleFeaturePyramid")):
        if build.__name__ not in BACKBONE_REGISTRY:
            BACKBONE_REGISTRY.register(build)


def add_maskrcnn_ext_config(cfg: CfgNode) -> None:
    """Adds the keys of heads and backbones, ``MODEL.MASKRCNN_EXT.<part>.<KEYWORD>``, with defaults, so that a file or option can set them.

    Each node has the keywords of the head's signature in capitals, for example::

        MODEL:
          ROI_MASK_HEAD: {NAME: BoundaryMaskHead}
          MASKRCNN_EXT:
            BoundaryMaskHead: {BOUNDARY_LOSS_WEIGHT: 2.0, MASK_LOSS: dice}
            MaskScoringHead: {BASE: DCTMaskHead}
            TimmBackbone: {NAME: convnext_tiny, PRETRAINED: weights.pth}

    The arguments of all mask heads (convolutions, norm, class-agnostic masks) stay in ``MODEL.ROI_MASK_HEAD``. The base of a
    MaskScoringHead reads the node of its name. Heads that take the feature maps need ``POOLER_TYPE: ""``. Without this call the heads use
    their defaults. ``MODEL.BACKBONE.NAME: TimmFPN`` selects the backbone of timm, ``TimmSimpleFeaturePyramid`` the same with the pyramid
    of ViTDet, ``MODEL.ROI_HEADS.NAME: BoxPredictorROIHeads`` the selection of detections by :class:`maskrcnn_ext.BoxPredictor`.

    Args:
        cfg: a config from ``detectron2.config.get_cfg()``; changed in place.

    Example:
        >>> from detectron2.config import get_cfg
        >>> cfg = get_cfg()
        >>> add_maskrcnn_ext_config(cfg)
        >>> cfg.MODEL.MASKRCNN_EXT.BoundaryMaskHead.MASK_LOSS
        'bce'
    """
    from detectron2.config import CfgNode

    cfg.MODEL.MASKRCNN_EXT = CfgNode()
    for part in MASK_HEADS:
        # The strides of the feature maps and the options of a base head come from the rest of the config.
        own = {k: v for k, v in part.load().own_defaults().items() if k not in ("strides", "base_options")}
        cfg.MODEL.MASKRCNN_EXT[part.name] = CfgNode({name.upper(): value for name, value in own.items()})
    # The pixels, maps and frozen stages come from Detectron2's keys. None takes any type.
    cfg.MODEL.MASKRCNN_EXT.TimmBackbone = CfgNode(
        {
            "NAME": "",
            "PRETRAINED": None,
            "NORM": None,
            "DROP_PATH_RATE": None,
            "OUT_NORMS": False,
            "ACTIVATION_CHECKPOINTING": False,
        }
    )
    cfg.MODEL.MASKRCNN_EXT.BoxPredictor = CfgNode(
        {
            "SUPPRESSION": "hard",
            "CLASS_AGNOSTIC_SUPPRESSION": False,
            "SOFT_SIGMA": 0.5,
            "CANDIDATE_NMS_THRESH": 0.8,
            "USE_MASKNESS": False,
        }
    )
