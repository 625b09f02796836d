"""Checks that the poolers and the mask head of a model fit together, before the first iteration."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.mask_heads.base import Features, MaskHead


def check_fit(model: nn.Module) -> None:
    """Pools zero boxes with the poolers of a model and passes the result to the input check of its mask head.

    Args:
        model: a GeneralizedRCNN. A model without RoI heads, or with a mask head of another package, passes.

    Raises:
        InputError: a pooler was built for another number of channels, or the mask head for other features. The message names both
            parts and the override that fixes it.
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
            head_input: Features = roi_heads.res5(_pool(pooler, _features(backbone, roi_heads.in_features)))
        else:
            pooler, head_input = roi_heads.mask_pooler, _features(backbone, roi_heads.mask_in_features)
            if pooler is not None:
                head_input = _pool(pooler, head_input)
        if isinstance(head, MaskHead):
            head.check_input(head_input, type(pooler).__name__)


def _features(backbone: nn.Module, names: list[str]) -> dict[str, Tensor]:
    device = next(backbone.parameters()).device
    shapes = backbone.output_shape()
    return {name: torch.zeros((1, shapes[name].channels, 1, 1), device=device) for name in names}


def _pool(pooler: nn.Module, features: dict[str, Tensor]) -> Tensor:
    maps = list(features.values())
    pooled: Tensor = pooler(maps, [Boxes(torch.zeros((0, 4), device=maps[0].device))])
    return pooled
