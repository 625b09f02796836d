"""Layers and RoIAlign that several mask heads share. Layers are initialised as in Detectron2's mask head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d, ConvTranspose2d, get_norm
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn


def make_norm(name: str, channels: int) -> nn.Module | None:
    """Returns Detectron2's norm layer, but a GroupNorm for any number of channels: of 32 groups, or as many as divide them.

    Args:
        name: that :func:`detectron2.layers.get_norm` knows; "" for no norm.
        channels: number of channels.

    Example:
        >>> make_norm("GN", 48).num_groups, make_norm("GN", 64).num_groups
        (16, 32)
    """
    if name == "GN":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    norm: nn.Module | None = get_norm(name, channels)
    return norm


def conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    norm: str = "",
) -> Conv2d:
    """Returns a convolution with norm and ReLU. By default the padding keeps the size at stride 1."""
    layer = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2) if padding is None else padding,
        dilation=dilation,
        bias=not norm,
        norm=make_norm(norm, out_channels),
        activation=nn.ReLU(),
    )
    weight_init.c2_msra_fill(layer)
    return layer


def conv_stack(in_channels: int, dims: Sequence[int], *, norm: str = "") -> nn.Sequential:
    """Returns a sequence of 3 x 3 convolutions, one for each of ``dims``."""
    return nn.Sequential(*[conv(a, b, norm=norm) for a, b in zip([in_channels, *dims], dims, strict=False)])


def deconv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Returns a 2 x 2 transposed convolution, which doubles the size, and a ReLU."""
    layer = ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
    weight_init.c2_msra_fill(layer)
    return nn.Sequential(layer, nn.ReLU())


def predictor(in_channels: int, num_classes: int, *, std: float = 0.001) -> Conv2d:
    """Returns a 1 x 1 convolution to logits with normal weights; by default they are near zero, as in Detectron2's mask head."""
    layer = Conv2d(in_channels, num_classes, kernel_size=1)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def fc_stack(in_features: int, dims: Sequence[int]) -> nn.Sequential:
    """Returns fully connected layers, each with a ReLU."""
    layers: list[nn.Module] = []
    for a, b in zip([in_features, *dims], dims, strict=False):
        layer = nn.Linear(a, b)
        weight_init.c2_xavier_fill(layer)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)


def roi_align(
    features: dict[str, Tensor], strides: Sequence[int], boxes: list[Boxes], size: int, *, sampling_ratio: int = 0
) -> Tensor:
    """Pools each box from the level of its area, as the stock mask pooler does.

    Args:
        features: maps (N, C, H_l, W_l), finest first.
        strides: their strides in pixels of the input image.
        boxes: one ``Boxes`` for each image, in pixels of the input image.
        size: side of the output.
        sampling_ratio: samples a bin in each direction; 0 for as many as the bin has pixels.

    Returns:
        (R, C, size, size)
    """
    # The pooler has no parameters: building it costs less than keeping one for every size.
    scales = [1 / stride for stride in strides]
    pooler = ROIPooler(size, scales, sampling_ratio=sampling_ratio, pooler_type="ROIAlignV2")
    pooled: Tensor = pooler(list(features.values()), boxes)
    return pooled


def roi_align_finest(
    features: dict[str, Tensor], strides: Sequence[int], boxes: list[Boxes], size: int, *, sampling_ratio: int = 0
) -> Tensor:
    """Pools each box from the finest level; see :func:`roi_align`."""
    name = next(iter(features))
    return roi_align({name: features[name]}, strides[:1], boxes, size, sampling_ratio=sampling_ratio)
