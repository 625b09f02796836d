"""Pooling from all FPN levels: GRoIE (arXiv:2004.13665) and PANet's adaptive feature pooling (arXiv:1803.01534)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal

import torch
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.attention import NonLocal, RelativePositionAttention
from maskrcnn_ext.modeling.poolers.base import ALIGNED, BasePooler, require_channels, require_one_of


class GenericROIPooler(BasePooler):
    """Pools each box from all levels and fuses them, instead of choosing one level by the size of the box.

    GRoIE (arXiv:2004.13665) is ``pre="conv" post="attention"``, as its authors train it. Without layers, the default is its sum: it has no
    parameters and takes any number of channels. ``fuse="max"`` is PANet's adaptive feature pooling (section 3.2). PANet applies one
    layer of the head to each level before the fusion; here, use ``pre="conv_per_level"``.

    ``pooler_type`` may also be "ROIPool"; ``canonical_box_size`` and ``canonical_level`` have no effect, as no level is chosen. See
    :class:`.base.BasePooler` for the shared arguments.

    Args:
        fuse: "sum", "max", "concat" (a 1x1 convolution reduces the channels of all levels to ``channels``) or "attention"
            (a 1x1 convolution over all levels and a softmax weight the levels in each bin; the weights start equal).
        pre: "conv" applies one 5x5 convolution and a ReLU to every level, "conv_per_level" another one to each level.
        post: "attention" applies :class:`.attention.RelativePositionAttention` to the fused features, "non_local" a non-local block
            (arXiv:1711.07971), "conv" a 5x5 convolution and a ReLU. Both kinds of attention start as the identity.
        num_heads: of ``post="attention"``.
        channels: C of the feature maps. Only a pooler with parameters needs it.

    Raises:
        InputError: an unknown ``pooler_type``, ``fuse``, ``pre`` or ``post``, fewer channels than ``num_heads``; in ``forward``, feature
            maps with another number of channels if the pooler has parameters.

    Example::

        model.roi_heads.mask_pooler._target_=maskrcnn_ext.GenericROIPooler model.roi_heads.mask_pooler.fuse=max
    """

    pooler_types = (*ALIGNED, "ROIPool")
    needs_square = False

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
        *,
        fuse: Literal["sum", "max", "concat", "attention"] = "sum",
        pre: Literal["conv", "conv_per_level"] | None = None,
        post: Literal["conv", "attention", "non_local"] | None = None,
        num_heads: int = 6,
        channels: int = 256,
    ) -> None:
        require_one_of(self, "fuse", fuse, ("sum", "max", "concat", "attention"))
        require_one_of(self, "pre", pre, (None, "conv", "conv_per_level"))
        require_one_of(self, "post", post, (None, "conv", "attention", "non_local"))
        super().__init__(output_size, scales, sampling_ratio, pooler_type, canonical_box_size, canonical_level)
        self.channels = channels
        self.pre = _pre(pre, len(scales), channels)
        self.fuse = _fusion(fuse, len(scales), channels)
        self.post = _post(post, channels, self.output_size, num_heads)
        self.has_parameters = any(True for _ in self.parameters())

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        if self.has_parameters:
            require_channels(self, self.channels, x[0].shape[1])
        if not box_lists:
            return super().forward(x, box_lists)
        rois = convert_boxes_to_pooler_format(box_lists)
        layers = self.pre if isinstance(self.pre, nn.ModuleList) else [self.pre] * len(x)
        levels = zip(layers, self.level_poolers, x, strict=True)
        return self.post(self.fuse([prepare(pool(features, rois)) for prepare, pool, features in levels]))


def _conv5x5(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 5, padding=2)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def _fusion(fuse: str, levels: int, channels: int) -> nn.Module:
    if fuse == "concat":
        return _Concat(levels, channels)
    if fuse == "attention":
        return _Attention(levels, channels)
    return _Elementwise(torch.maximum if fuse == "max" else torch.add)


def _pre(pre: str | None, levels: int, channels: int) -> nn.Module:
    if pre == "conv_per_level":
        return nn.ModuleList(_conv5x5(channels) for _ in range(levels))
    return _conv5x5(channels) if pre == "conv" else nn.Identity()


def _post(post: str | None, channels: int, size: tuple[int, int], num_heads: int) -> nn.Module:
    if post == "attention":
        return RelativePositionAttention(channels, size, num_heads=num_heads)
    if post == "non_local":
        return NonLocal(channels)
    return _conv5x5(channels) if post == "conv" else nn.Identity()


class _Elementwise(nn.Module):
    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, pooled: list[Tensor]) -> Tensor:
        return reduce(self.operation, pooled)


class _Concat(nn.Module):
    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(levels * channels, channels, 1)

    def forward(self, pooled: list[Tensor]) -> Tensor:
        return self.reduce(torch.cat(pooled, dim=1))


class _Attention(nn.Module):
    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(levels * channels, levels, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, pooled: list[Tensor]) -> Tensor:
        weights = self.score(torch.cat(pooled, dim=1)).softmax(dim=1)
        return reduce(torch.add, (weights[:, level : level + 1] * features for level, features in enumerate(pooled)))
