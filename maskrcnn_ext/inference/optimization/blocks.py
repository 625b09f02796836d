"""Detectron2's residual blocks and stem, of fused convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.inference.optimization.convolution import FusedConv2d

# Rows of the stem's output at a time.
_BAND = 16


class FusedBlock(nn.Module):
    """A ``BasicBlock`` or ``BottleneckBlock``: every ReLU and the sum are part of a convolution."""

    def __init__(self, block: nn.Module, fused: Callable[..., FusedConv2d], *, follows: bool) -> None:
        """Takes over a block.

        Args:
            block: of Detectron2.
            fused: makes its convolutions.
            follows: another block of its stage, whose output nobody else needs.
        """
        super().__init__()
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, BottleneckBlock) else [])]
        self.inner = nn.Sequential(*(fused(conv, relu=True) for conv in convs[:-1]))
        self.last = fused(convs[-1])
        self.shortcut = None if block.shortcut is None else fused(block.shortcut)
        self.overwrite = follows or self.shortcut is not None
        self.in_channels, self.out_channels, self.stride = block.in_channels, block.out_channels, block.stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        residual = x if self.shortcut is None else self.shortcut(x)
        return self.last.add_relu(self.inner(x), residual, overwrite=self.overwrite)


class FusedStem(nn.Module):
    """A ``BasicStem`` that convolves and pools a band of rows at a time: its convolution has the largest map of the whole net."""

    def __init__(self, stem: BasicStem, fused: Callable[..., FusedConv2d]) -> None:
        """Takes over a stem; `fused` makes its convolution."""
        super().__init__()
        self.conv1 = fused(stem.conv1, relu=True)
        self.rows = stem.conv1.kernel_size[0]
        self.margin, self.conv1.padding[0] = self.conv1.padding[0], 0
        self.in_channels, self.out_channels, self.stride = stem.in_channels, stem.out_channels, stem.stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 4, W / 4)."""
        step = self.conv1.stride[0]
        x = F.pad(x, (0, 0, self.margin, self.margin))
        height = (x.shape[2] - self.rows) // step + 1  # of the convolution
        pooled = []
        for first in range(0, (height + 1) // 2, _BAND):
            last = min(first + _BAND, (height + 1) // 2)
            # Row r is pooled from 2 r - 1 to 2 r + 1. What lies outside is 0 here and -inf in the plain operator: the same after a ReLU.
            begin, end = max(2 * first - 1, 0), min(2 * last, height)
            band = self.conv1(x[:, :, step * begin : step * (end - 1) + self.rows])
            band = F.pad(band, (0, 0, begin - (2 * first - 1), 2 * last - end))
            pooled.append(F.max_pool2d(band, kernel_size=3, stride=2, padding=(0, 1)))
        return torch.cat(pooled, dim=2)


def fuse_block(module: nn.Module, name: str, fused: Callable[..., FusedConv2d]) -> nn.Module | None:
    """Returns the fused form of a module that is exactly one of Detectron2's blocks or its stem, else None.

    Args:
        module: any.
        name: in its parent: Detectron2 numbers the blocks of a stage from 0.
        fused: makes convolutions.
    """
    if type(module) in (BasicBlock, BottleneckBlock):
        return FusedBlock(module, fused, follows=name.isdigit() and name != "0")
    if (
        type(module) is BasicStem and module.conv1.weight.device.type == "cpu"
    ):  # a GPU has the memory, and nothing to do meanwhile
        return FusedStem(module, fused)
    return None
