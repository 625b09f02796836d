"""Detectron2's residual blocks, stem and FPN, made of fused convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.compat import fpn_fuse_type
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, is_fusible_conv

# Rows of the stem's output that are computed at a time.
_BAND_ROWS = 16


class FusedBlock(nn.Module):
    """A ``BasicBlock`` or ``BottleneckBlock`` whose ReLUs and residual sum are epilogues of its convolutions."""

    def __init__(self, block: nn.Module, make_conv: Callable[..., FusedConv2d], *, owns_input: bool) -> None:
        """Builds the fused form of a block.

        Args:
            block: Detectron2's block.
            make_conv: returns the fused form of a convolution.
            owns_input: whether nothing but this block reads its input, so that the residual sum may overwrite it.
        """
        super().__init__()
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, BottleneckBlock) else [])]
        self.inner = nn.Sequential(*(make_conv(conv, relu=True) for conv in convs[:-1]))
        self.last = make_conv(convs[-1])
        self.shortcut = None if block.shortcut is None else make_conv(block.shortcut)
        self.overwrite = owns_input or self.shortcut is not None
        self.in_channels, self.out_channels, self.stride = block.in_channels, block.out_channels, block.stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        return self.last.add(self.inner(x), residual, relu=True, overwrite=self.overwrite)


class FusedStem(nn.Module):
    """A ``BasicStem`` that convolves and pools one band of rows at a time.

    The output of the stem's convolution is the largest map of the whole network; here it never exists as a whole.
    """

    def __init__(self, stem: BasicStem, make_conv: Callable[..., FusedConv2d]) -> None:
        """Builds the fused form of a stem; `make_conv` returns the fused form of its convolution."""
        super().__init__()
        self.conv1 = make_conv(stem.conv1, relu=True)
        self.kernel_rows = stem.conv1.kernel_size[0]
        self.margin, self.conv1.padding[0] = self.conv1.padding[0], 0
        self.in_channels, self.out_channels, self.stride = stem.in_channels, stem.out_channels, stem.stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / 4, W / 4)."""
        step = self.conv1.stride[0]
        x = F.pad(x, (0, 0, self.margin, self.margin))
        conv_height = (x.shape[2] - self.kernel_rows) // step + 1
        pooled_height = (conv_height + 1) // 2
        pooled = []
        for first in range(0, pooled_height, _BAND_ROWS):
            last = min(first + _BAND_ROWS, pooled_height)
            # Row r is pooled from rows 2 r - 1 to 2 r + 1. Padding is 0 here and -inf in max_pool2d: the same after a ReLU.
            begin, end = max(2 * first - 1, 0), min(2 * last, conv_height)
            band = self.conv1(x[:, :, step * begin : step * (end - 1) + self.kernel_rows])
            band = F.pad(band, (0, 0, begin - (2 * first - 1), 2 * last - end))
            pooled.append(F.max_pool2d(band, kernel_size=3, stride=2, padding=(0, 1)))
        return torch.cat(pooled, dim=2)


class WrappedBackbone(Backbone):
    """A backbone that computes with the parts of another, and has its shapes."""

    def __init__(self, wrapped: Backbone) -> None:
        """Takes over a backbone."""
        super().__init__()
        self.wrapped = wrapped

    @property
    def size_divisibility(self) -> int:
        """Returns that of the wrapped backbone."""
        return int(self.wrapped.size_divisibility)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Returns those of the wrapped backbone."""
        constraints: dict[str, int] = self.wrapped.padding_constraints
        return constraints

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Returns that of the wrapped backbone."""
        shapes: dict[str, ShapeSpec] = self.wrapped.output_shape()
        return shapes


class AutocastBackbone(WrappedBackbone):
    """A backbone in bf16, whose layers that were not replaced run under PyTorch's autocast.

    Matrix products and convolutions are computed in bf16. Their weights are cast once, here.
    """

    def __init__(self, wrapped: Backbone) -> None:
        """Takes over a backbone and casts the weights of its layers."""
        super().__init__(wrapped)
        for layer in wrapped.modules():
            if type(layer) in (nn.Linear, nn.Conv2d, Conv2d, nn.ConvTranspose2d):
                for parameter in layer.parameters(recurse=False):
                    parameter.data = parameter.data.bfloat16()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Maps images (N, C, H, W) to maps by name, as the backbone does; their dtype is bfloat16 or float32."""
        with torch.autocast(image.device.type, torch.bfloat16):
            features: dict[str, Tensor] = self.wrapped(image)
        return features


class FusedFPN(WrappedBackbone):
    """An ``FPN`` whose top-down sums are epilogues of the lateral convolutions: no level is upsampled on its own.

    It wraps an FPN for which :func:`is_fusible_fpn` is true.
    """

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Maps images (N, C, H, W) to the pyramid's levels by name, as the FPN does."""
        fpn = self.wrapped
        names = list(fpn.output_shape())
        features = dict(fpn.bottom_up(image))  # entries are removed below
        top_down = fpn.lateral_convs[0](features[fpn.in_features[-1]])
        levels = [fpn.output_convs[0](top_down)]
        rest = zip(fpn.in_features[-2::-1], fpn.lateral_convs[1:], fpn.output_convs[1:], strict=True)
        for name, lateral, output in rest:
            top_down = lateral.add_upsampled(features[name], top_down)
            if fpn.top_block is None or name != fpn.top_block.in_feature:
                del features[name]  # frees the largest maps before those of the next level are made
            if fpn_fuse_type(fpn) == "avg":
                top_down /= 2
            levels.insert(0, output(top_down))
        if fpn.top_block is not None:
            name = fpn.top_block.in_feature
            levels += fpn.top_block(features[name] if name in features else levels[names.index(name)])
        return dict(zip(names, levels, strict=True))


def fuse_block(
    module: nn.Module, make_conv: Callable[..., FusedConv2d], *, owns_input: bool = False
) -> nn.Module | None:
    """Returns the fused form of one of Detectron2's blocks or its stem, or None for any other module, subclasses included.

    Args:
        module: any module.
        make_conv: returns the fused form of a convolution.
        owns_input: see :class:`FusedBlock`.
    """
    if type(module) not in (BasicBlock, BottleneckBlock, BasicStem):
        return None
    if not all(is_fusible_conv(conv) for conv in module.modules() if isinstance(conv, nn.Conv2d)):
        return None
    if type(module) is not BasicStem:
        return FusedBlock(module, make_conv, owns_input=owns_input)
    # A GPU has memory for the whole map, and bands would only add launches.
    return FusedStem(module, make_conv) if module.conv1.weight.device.type == "cpu" else None


def is_fusible_fpn(backbone: Backbone) -> bool:
    """Whether a backbone is exactly Detectron2's FPN, with lateral convolutions that are fused and have no activation."""
    return type(backbone) is FPN and all(
        isinstance(conv, FusedConv2d) and not conv.relu and conv.activation is None for conv in backbone.lateral_convs
    )
