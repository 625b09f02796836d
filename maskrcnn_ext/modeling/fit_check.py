"""Checks that the poolers and heads of a model fit together, and its pixels its backbone, before the first iteration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.backbones.input_conversion import InputConversion
from maskrcnn_ext.modeling.box_predictor import check_box_predictor
from maskrcnn_ext.modeling.mask_heads.base import Features, MaskHead


def check_fit(model: nn.Module) -> None:
    """Pools zero boxes with the poolers of a model, passes the result to the input check of its mask head, and compares pixels.

    Args:
        model: a GeneralizedRCNN. A model without RoI heads, or with a mask head of another package, passes.

    Raises:
        InputError: a pooler was built for another number of channels, or the mask head for other features; the RoI heads cannot use
            their box predictor; or the backbone expects other pixels. The message names both parts and the override that fixes it.
    """
    mean, std = getattr(model, "pixel_mean", None), getattr(model, "pixel_std", None)
    if mean is not None and std is not None and not mean.is_meta:
        check_pixels(model, mean.flatten().tolist(), std.flatten().tolist(), getattr(model, "input_format", None))
    roi_heads = getattr(model, "roi_heads", None)
    backbone = getattr(model, "backbone", None)
    if roi_heads is None or backbone is None:
        return
    check_box_predictor(roi_heads)
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


def check_pixels(model: nn.Module, mean: Sequence[float], std: Sequence[float], input_format: str | None) -> None:
    """Compares the pixels that a model feeds its backbone with those that the backbone expects.

    Args:
        model: a model whose backbone may convert its pixels, as :class:`maskrcnn_ext.TimmBackbone` does.
        mean: mean that the model subtracts.
        std: deviation that it divides by.
        input_format: its channel order; None if it is unknown.

    Raises:
        InputError: they differ; the message has the overrides that fix it.
    """
    for name, module in model.named_modules():
        if not isinstance(module, InputConversion):
            continue
        where = f"model.{name.rpartition('.')[0]}"
        wrong = {
            key: value
            for key, value, expected in (("pixel_mean", mean, module.mean), ("pixel_std", std, module.std))
            if len(value) != len(expected) or any(abs(a - b) > 1e-3 for a, b in zip(value, expected, strict=True))
        }
        texts = [f"{where}.{key}=[{','.join(f'{entry:.7g}' for entry in value)}]" for key, value in wrong.items()]
        if input_format is not None and input_format != module.input_format and len(mean) == 3:
            texts.append(f"{where}.input_format={input_format}")
        if texts:
            raise InputError(
                f"the model feeds its backbone other pixels than the backbone expects ({module}): set {' '.join(texts)}"
            )


def _features(backbone: nn.Module, names: list[str]) -> dict[str, Tensor]:
    device = next(backbone.parameters()).device
    shapes = backbone.output_shape()
    return {name: torch.zeros((1, shapes[name].channels, 1, 1), device=device) for name in names}


def _pool(pooler: nn.Module, features: dict[str, Tensor]) -> Tensor:
    maps = list(features.values())
    pooled: Tensor = pooler(maps, [Boxes(torch.zeros((0, 4), device=maps[0].device))])
    return pooled
