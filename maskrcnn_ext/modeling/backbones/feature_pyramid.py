"""Feature pyramids from the single feature map of a plain ViT ("Exploring Plain Vision Transformer Backbones", arXiv:2203.16527)."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import Backbone
from detectron2.modeling.backbone import FPN
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel, (N, C, H, W), with one weight and bias a channel.

    Example:
        >>> ChannelLayerNorm(2)(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).flatten()
        tensor([-1.0000,  1.0000], grad_fn=<...>)
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ScaledMaps(nn.Module):
    """Computes maps of strides 4, 8, 16 and 32 from one map of stride 16 (arXiv:2203.16527, section 3).

    Stride 4: two transposed convolutions with LayerNorm and GELU between them; stride 8: one; stride 16: the map itself; stride 32: a
    max-pooling of 2 x 2.

    Attributes:
        channels: stride -> channels of the map.

    Example:
        >>> [tuple(x.shape) for x in ScaledMaps(16, (4, 32))(torch.zeros(1, 16, 2, 2)).values()]
        [(1, 4, 8, 8), (1, 16, 1, 1)]
    """

    def __init__(self, channels: int, strides: tuple[int, ...] = (4, 8, 16, 32)) -> None:
        """Builds.

        Args:
            channels: of the map of stride 16.
            strides: those of the maps to compute.
        """
        super().__init__()
        known: dict[int, tuple[int, nn.Module]] = {
            4: (
                channels // 4,
                nn.Sequential(
                    nn.ConvTranspose2d(channels, channels // 2, 2, 2),
                    ChannelLayerNorm(channels // 2),
                    nn.GELU(),
                    nn.ConvTranspose2d(channels // 2, channels // 4, 2, 2),
                ),
            ),
            8: (channels // 2, nn.ConvTranspose2d(channels, channels // 2, 2, 2)),
            16: (channels, nn.Identity()),
            32: (channels, nn.MaxPool2d(2)),
        }
        self.channels = {stride: known[stride][0] for stride in strides}
        self.scales = nn.ModuleDict({str(stride): known[stride][1] for stride in strides})

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(N, C, H, W) of stride 16 -> stride -> map."""
        return {int(stride): scale(x) for stride, scale in self.scales.items()}


class SimpleFeaturePyramid(FPN):
    """FPN without its top-down path: each map of the backbone gets its own 1 x 1 and 3 x 3 convolution (arXiv:2203.16527).

    It takes FPN's arguments. With a plain ViT in :class:`~maskrcnn_ext.TimmBackbone` it is the pyramid of ViTDet.

    Example::

        model.backbone._target_=maskrcnn_ext.SimpleFeaturePyramid model.backbone.norm=LN
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: list[str],
        out_channels: int,
        norm: Any = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
    ) -> None:
        """Builds the convolutions under FPN's names.

        Args:
            bottom_up: backbone.
            in_features: its maps to use, from the smallest stride to the largest.
            out_channels: channels of all outputs.
            norm: as for FPN; "LN" is a LayerNorm over the channels, also where Detectron2 does not know it.
            top_block: computes further maps from the last one.
            fuse_type: has no effect, since no maps are fused.
        """
        super().__init__(
            bottom_up, in_features, out_channels, ChannelLayerNorm if norm == "LN" else norm, top_block, fuse_type
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) -> name ("p2", ...) -> map (N, out_channels, H / stride, W / stride)."""
        maps = self.bottom_up(x)
        results = [
            output(lateral(maps[name]))
            for name, lateral, output in zip(
                self.in_features, self.lateral_convs[::-1], self.output_convs[::-1], strict=True
            )
        ]
        names = list(self.output_shape())
        if self.top_block is not None:
            source = self.top_block.in_feature
            results += self.top_block(maps[source] if source in maps else results[names.index(source)])
        return dict(zip(names, results, strict=True))
