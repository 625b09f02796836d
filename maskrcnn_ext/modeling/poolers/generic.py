"""Boxes pooled from all FPN levels: GRoIE (arXiv:2004.13665) and PANet's adaptive feature pooling (arXiv:1803.01534)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal

import torch
from detectron2.modeling.poolers import ROIPooler, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from maskrcnn_ext.modeling.poolers.arguments import as_pair, require_channels, require_one_of


class GenericROIPooler(ROIPooler):
    """Pools every box from every level and fuses the levels, instead of choosing one by the box's size.

    The default is GRoIE's sum without its layers: it has no parameters and takes any number of channels. ``fuse="max"`` is PANet's
    adaptive feature pooling (section 3.2); there every level passes one layer of the head before it is fused, here ``pre="conv"``.

    The arguments are those of Detectron2's ROIPooler and some more; ``forward`` takes feature maps (N, C, H, W), one a level, and
    N ``Boxes``, and returns (M, C, h, w) with M boxes of all images.

    Args:
        output_size: bins along the height and the width, one number for both or a pair.
        scales: 1 / stride of every level.
        sampling_ratio: samples per bin and axis; 0 takes as many as a bin has pixels, rounded up.
        pooler_type: what pools a level: "ROIAlignV2", "ROIAlign" or "ROIPool".
        canonical_box_size: without effect; no level is chosen.
        canonical_level: without effect.
        fuse: "sum", "max", "concat" (a 1x1 convolution brings the channels of all levels back to ``channels``) or "attention"
            (weights of the levels, bin by bin, by a 1x1 convolution over all of them and a softmax; they start equal).
        pre: "conv" passes every level through a 5x5 convolution of its own and a ReLU.
        post: "conv" passes the fused features through a 5x5 convolution and a ReLU, "attention" through a non-local block
            (arXiv:1711.07971), which starts as the identity.
        channels: C of the feature maps. Only a pooler with parameters asks for it.

    Raises:
        InputError: for another value of ``pooler_type``, ``fuse``, ``pre`` or ``post``, and in ``forward`` for feature maps of another
            number of channels, where there are parameters.
    """

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
        pre: Literal["conv"] | None = None,
        post: Literal["conv", "attention"] | None = None,
        channels: int = 256,
    ) -> None:
        require_one_of(self, "pooler_type", pooler_type, ("ROIAlignV2", "ROIAlign", "ROIPool"))
        require_one_of(self, "fuse", fuse, ("sum", "max", "concat", "attention"))
        require_one_of(self, "pre", pre, (None, "conv"))
        require_one_of(self, "post", post, (None, "conv", "attention"))
        super().__init__(
            as_pair(output_size), list(scales), sampling_ratio, pooler_type, canonical_box_size, canonical_level
        )
        self.channels = channels
        self.pre = nn.ModuleList(_conv5x5(channels) if pre == "conv" else nn.Identity() for _ in scales)
        self.fuse = _fusion(fuse, len(scales), channels)
        self.post = _post(post, channels)
        self.has_parameters = any(True for _ in self.parameters())

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        if self.has_parameters:
            require_channels(self, self.channels, x[0].shape[1])
        if not box_lists:
            return super().forward(x, box_lists)
        rois = convert_boxes_to_pooler_format(box_lists)
        levels = zip(self.pre, self.level_poolers, x, strict=True)
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


def _post(post: str | None, channels: int) -> nn.Module:
    if post == "attention":
        return _NonLocal(channels)
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


class _NonLocal(nn.Module):
    """Self-attention between the bins of a box (embedded Gaussian), added to the input (arXiv:1711.07971, equations 1 to 6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = max(channels // 2, 1)
        self.embed = nn.Conv2d(channels, 3 * self.hidden, 1)
        self.out = nn.Conv2d(self.hidden, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        query, key, value = self.embed(features).flatten(2).split(self.hidden, dim=1)
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)
        return features + self.out((value @ attention.transpose(1, 2)).unflatten(2, features.shape[2:]))
