"""Do a model's poolers and mask head fit together? Asked once, before the first iteration."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.mask_heads.base import Features, MaskHead


def check_fit(model: nn.Module) -> None:
    """Lets the poolers pool no box at all and shows the result to the mask head.

    Args:
        model: a GeneralizedRCNN; what has no RoI heads, or parts from elsewhere, passes.

    Raises:
        InputError: a pooler was built for other channels, or the mask head for other features; the message names the two and the
            override that mends it.
    """
    roi_heads = getattr(model, "roi_heads", None)
    backbone = getattr(model, "backbone", None)
    if roi_heads is None or backbone is None:
        return
    with torch.no_grad():
        if hasattr(roi_heads, "box_pooler"):
            _pool(roi_heads.box_pooler, _features(backbone, roi_heads.box_in_features))
        head = getattr(roi_heads, "mask_head", None)
        if head is None:
            return
        if hasattr(roi_heads, "res5"):  # C4: boxes and masks share pooler and res5
            pooler = roi_heads.pooler
            handed: Features = roi_heads.res5(_pool(pooler, _features(backbone, roi_heads.in_features)))
        else:
            pooler, handed = roi_heads.mask_pooler, _features(backbone, roi_heads.mask_in_features)
            if pooler is not None:
                handed = _pool(pooler, handed)
        if isinstance(head, MaskHead):
            head.check_input(handed, type(pooler).__name__)


def _features(backbone: nn.Module, names: list[str]) -> dict[str, Tensor]:
    device = next(backbone.parameters()).device
    shapes = backbone.output_shape()
    return {name: torch.zeros((1, shapes[name].channels, 1, 1), device=device) for name in names}


def _pool(pooler: nn.Module, features: dict[str, Tensor]) -> Tensor:
    maps = list(features.values())
    pooled: Tensor = pooler(maps, [Boxes(torch.zeros((0, 4), device=maps[0].device))])
    return pooled
