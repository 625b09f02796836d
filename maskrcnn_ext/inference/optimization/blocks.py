"""Detectron2's residual blocks and stem, of fused convolutions."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.inference.optimization.convolution import FusedConv2d


class FusedBlock(nn.Module):
    """A ``BasicBlock`` or ``BottleneckBlock``: every ReLU and the sum are part of a convolution."""

    def __init__(self, block: nn.Module, fused: Callable[..., FusedConv2d]) -> None:
        """Takes over a block; `fused` makes its convolutions."""
        super().__init__()
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, BottleneckBlock) else [])]
        self.inner = nn.Sequential(*(fused(conv, relu=True) for conv in convs[:-1]))
        self.last = fused(convs[-1])
        self.shortcut = None if block.shortcut is None else fused(block.shortcut)
        self.in_channels, self.out_channels, self.stride = block.in_channels, block.out_channels, block.stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.last.add_relu(self.inner(x), x if self.shortcut is None else self.shortcut(x))


class FusedStem(nn.Module):
    """A ``BasicStem`` whose ReLU is part of the convolution."""

    def __init__(self, stem: BasicStem, fused: Callable[..., FusedConv2d]) -> None:
        """Takes over a stem; `fused` makes its convolution."""
        super().__init__()
        self.conv1 = fused(stem.conv1, relu=True)
        self.in_channels, self.out_channels, self.stride = stem.in_channels, stem.out_channels, stem.stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 4, W / 4)."""
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


def fuse_block(module: nn.Module, fused: Callable[..., FusedConv2d]) -> nn.Module | None:
    """Returns the fused form of a module that is exactly one of Detectron2's blocks or its stem, else None."""
    if type(module) in (BasicBlock, BottleneckBlock):
        return FusedBlock(module, fused)
    if type(module) is BasicStem:
        return FusedStem(module, fused)
    return None
