"""Layers that several mask heads are made of, initialised as Detectron2's head initialises its own."""

from __future__ import annotations

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d, ConvTranspose2d, get_norm
from torch import nn


def conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int | None = None,
    norm: str = "",
) -> Conv2d:
    """A convolution with norm and ReLU; unless a padding is given, the size is unchanged at stride 1."""
    layer = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=kernel_size // 2 if padding is None else padding,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=nn.ReLU(),
    )
    weight_init.c2_msra_fill(layer)
    return layer


def conv_stack(in_channels: int, dims: Sequence[int], *, norm: str = "") -> nn.Sequential:
    """3 x 3 convolutions one after another; nothing for no ``dims``."""
    return nn.Sequential(*[conv(a, b, norm=norm) for a, b in zip([in_channels, *dims], dims, strict=False)])


def deconv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Doubles the size: a 2 x 2 transposed convolution and ReLU."""
    layer = ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
    weight_init.c2_msra_fill(layer)
    return nn.Sequential(layer, nn.ReLU())


def predictor(in_channels: int, num_classes: int) -> Conv2d:
    """A 1 x 1 convolution to logits that are near zero at first."""
    layer = Conv2d(in_channels, num_classes, kernel_size=1)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return layer


def fc_stack(in_features: int, dims: Sequence[int]) -> nn.Sequential:
    """Fully connected layers with ReLU on what the caller has flattened."""
    layers: list[nn.Module] = []
    for a, b in zip([in_features, *dims], dims, strict=False):
        layer = nn.Linear(a, b)
        weight_init.c2_xavier_fill(layer)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)
