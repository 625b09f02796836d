"""The mask heads and FastRPN for yacs configs: Detectron2's registries, and the keys that the heads read.

Imports Detectron2 in its functions only: the plugin hook runs while Detectron2 is still being imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.modeling.parts import MASK_HEADS, Part

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn


def registered_name(part: Part) -> str:
    """The head's name in ``MODEL.ROI_MASK_HEAD.NAME``: its class name, but Detectron2's own PointRend keeps the names it has."""
    return f"Ext{part.name}" if part.name.endswith("PointRendMaskHead") else part.name


def _builder(part: Part) -> Callable[..., nn.Module]:
    def build(cfg: CfgNode, input_shape: Any) -> nn.Module:
        head: nn.Module = part.load()(cfg, input_shape)
        return head

    build.__name__ = registered_name(part)
    build.__doc__ = f"Builds a {part.name} from a yacs config."
    return build


def register_mask_heads() -> None:
    """Puts every mask head into Detectron2's registry under :func:`registered_name`. Idempotent; loads no head."""
    from detectron2.modeling import ROI_MASK_HEAD_REGISTRY

    for part in MASK_HEADS:
        if registered_name(part) not in ROI_MASK_HEAD_REGISTRY:
            ROI_MASK_HEAD_REGISTRY.register(_builder(part))


def register_rpn() -> None:
    """Puts FastRPN into Detectron2's registry, for ``MODEL.PROPOSAL_GENERATOR.NAME``. Idempotent; loads nothing of ours."""
    from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY

    def build(cfg: CfgNode, input_shape: Any) -> nn.Module:
        from maskrcnn_ext.modeling.rpn import FastRPN

        return FastRPN(cfg, input_shape)

    build.__name__ = "FastRPN"
    if build.__name__ not in PROPOSAL_GENERATOR_REGISTRY:
        PROPOSAL_GENERATOR_REGISTRY.register(build)


def add_maskrcnn_ext_config(cfg: CfgNode) -> None:
    """Declares the heads' own keys, ``MODEL.MASKRCNN_EXT.<head>.<KEYWORD>``, with their defaults, so that a file or option can set them.

    A node has the keywords of the head's signature in capitals, for example::

        MODEL:
          ROI_MASK_HEAD: {NAME: BoundaryMaskHead}
          MASKRCNN_EXT:
            BoundaryMaskHead: {BOUNDARY_LOSS_WEIGHT: 2.0, MASK_LOSS: dice}
            MaskScoringHead: {BASE: DCTMaskHead}

    What every mask head of Detectron2 has (convolutions, norm, class-agnostic masks) stays in ``MODEL.ROI_MASK_HEAD``. A
    MaskScoringHead's base reads the node of its own name. A head that takes the feature maps wants ``POOLER_TYPE: ""``.
    Without this call the heads have their defaults.

    Args:
        cfg: as ``detectron2.config.get_cfg()`` makes it; changed in place.
    """
    from detectron2.config import CfgNode

    cfg.MODEL.MASKRCNN_EXT = CfgNode()
    for part in MASK_HEADS:
        # The feature maps' strides and a base head's options come from the rest of the config.
        own = {k: v for k, v in part.load().own_defaults().items() if k not in ("strides", "base_options")}
        cfg.MODEL.MASKRCNN_EXT[part.name] = CfgNode({name.upper(): value for name, value in own.items()})
