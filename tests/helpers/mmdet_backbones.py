"""The backbones of MMDetection with its parameter names, in plain torch; written from the papers and the names in its checkpoints."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Part(nn.Module):
    """Holds the layers that it is given by name."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


def channel_norm(norm, x):
    """Normalises the channels of (N, C, H, W)."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Swin(nn.Module):
    """Swin Transformer (arXiv:2103.14030), tiny. Attention is computed between all pixels of the padded map, under a mask."""

    channels = (96, 192, 384, 768)

    def __init__(self, window=7, depths=(2, 2, 6, 2)):
        super().__init__()
        self.window = window
        self.patch_embed = Part(projection=nn.Conv2d(3, 96, 4, 4), norm=nn.LayerNorm(96))
        self.stages = nn.ModuleList()
        for index, (width, depth) in enumerate(zip(self.channels, depths, strict=True)):
            stage = Part(blocks=nn.ModuleList(self.block(width, width // 32) for _ in range(depth)))
            if index < 3:
                stage.downsample = Part(
                    norm=nn.LayerNorm(4 * width), reduction=nn.Linear(4 * width, 2 * width, bias=False)
                )
            self.stages.append(stage)
            setattr(self, f"norm{index}", nn.LayerNorm(width))

    def block(self, width, heads):
        window = Part(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width))
        window.relative_position_bias_table = nn.Parameter(torch.randn((2 * self.window - 1) ** 2, heads))
        window.register_buffer("relative_position_index", torch.zeros(self.window**2, self.window**2).long())
        layers = nn.ModuleList([nn.ModuleList([nn.Linear(width, 4 * width)]), nn.Linear(4 * width, width)])
        return Part(
            norm1=nn.LayerNorm(width), attn=Part(w_msa=window), norm2=nn.LayerNorm(width), ffn=Part(layers=layers)
        )

    def forward(self, x):
        x = self.patch_embed.norm(self.patch_embed.projection(x).permute(0, 2, 3, 1))
        maps = []
        for index, stage in enumerate(self.stages):
            for number, block in enumerate(stage.blocks):
                x = x + self.attend(block.attn.w_msa, block.norm1(x), number % 2 * (self.window // 2))
                hidden = block.ffn.layers[0][0](block.norm2(x))
                x = x + block.ffn.layers[1](F.gelu(hidden))
            maps.append(getattr(self, f"norm{index}")(x).permute(0, 3, 1, 2))
            if index < 3:
                merge = stage.downsample
                x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
                height, width = x.shape[1] // 2, x.shape[2] // 2
                columns = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
                x = merge.reduction(merge.norm(columns)).unflatten(1, (height, width))
        return maps

    def attend(self, layer, x, shift):
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        rows, columns = x.shape[1:3]
        heads = layer.relative_position_bias_table.shape[1]
        # Of each position: where it is after the shift, in its window, and whether the shift moved it across the border.
        places = []
        for count in (rows, columns):
            moved = (torch.arange(count) - shift) % count
            places.append((moved // self.window, moved % self.window, torch.arange(count) < shift))
        grids = [torch.meshgrid(y, x_, indexing="ij") for y, x_ in zip(*places, strict=True)]
        (window_y, window_x), (inner_y, inner_x), (crossed_y, crossed_x) = [
            [grid.flatten() for grid in pair] for pair in grids
        ]
        together = torch.ones(rows * columns, rows * columns, dtype=torch.bool)
        for value in (window_y, window_x, crossed_y, crossed_x):
            together &= value[:, None] == value[None, :]
        offsets = [place[:, None] - place[None, :] + self.window - 1 for place in (inner_y, inner_x)]
        index = offsets[0] * (2 * self.window - 1) + offsets[1]
        index = index.where(together, 0)
        bias = layer.relative_position_bias_table[index].permute(2, 0, 1)
        q, k, v = layer.qkv(x.flatten(1, 2)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
        found = logits.masked_fill(~together, -torch.inf).softmax(-1) @ v
        found = layer.proj(found.transpose(1, 2).flatten(2)).unflatten(1, (rows, columns))
        return found[:, :height, :width]


class ConvNeXt(nn.Module):
    """ConvNeXt (arXiv:2201.03545), tiny; version 2 (arXiv:2301.00808) has a response norm instead of the scale."""

    channels = (96, 192, 384, 768)

    def __init__(self, version=1):
        super().__init__()
        self.downsample_layers, self.stages = nn.ModuleList(), nn.ModuleList()
        before = 3
        for index, (width, depth) in enumerate(zip(self.channels, (3, 3, 9, 3), strict=True)):
            norm = nn.LayerNorm(width if index == 0 else before, eps=1e-6)
            conv = nn.Conv2d(before, width, 2 if index else 4, 2 if index else 4)
            self.downsample_layers.append(nn.ModuleList([norm, conv] if index else [conv, norm]))
            blocks = nn.ModuleList()
            for _ in range(depth):
                block = Part(
                    depthwise_conv=nn.Conv2d(width, width, 7, padding=3, groups=width),
                    norm=nn.LayerNorm(width, eps=1e-6),
                    pointwise_conv1=nn.Linear(width, 4 * width),
                    pointwise_conv2=nn.Linear(4 * width, width),
                )
                if version == 1:
                    block.gamma = nn.Parameter(torch.rand(width))
                else:
                    block.grn = Part(
                        gamma=nn.Parameter(torch.rand(4 * width)), beta=nn.Parameter(torch.rand(4 * width))
                    )
                blocks.append(block)
            self.stages.append(blocks)
            setattr(self, f"norm{index}", nn.LayerNorm(width, eps=1e-6))
            before = width

    def forward(self, x):
        maps = []
        for index, (first, second) in enumerate(self.downsample_layers):
            x = channel_norm(second, first(x)) if index == 0 else second(channel_norm(first, x))
            for block in self.stages[index]:
                hidden = block.norm(block.depthwise_conv(x).permute(0, 2, 3, 1))
                hidden = F.gelu(block.pointwise_conv1(hidden))
                if hasattr(block, "grn"):
                    length = hidden.pow(2).sum((1, 2), keepdim=True).sqrt()
                    share = length / (length.mean(3, keepdim=True) + 1e-6)
                    hidden = hidden + hidden * share * block.grn.gamma + block.grn.beta
                hidden = block.pointwise_conv2(hidden) * getattr(block, "gamma", 1)
                x = x + hidden.permute(0, 3, 1, 2)
            maps.append(channel_norm(getattr(self, f"norm{index}"), x))
        return maps


class RegNetX(nn.Module):
    """RegNetX (arXiv:2003.13678) of 400 MF: bottlenecks of one width, with groups of 16 channels."""

    channels = (32, 64, 160, 384)

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        before = 32
        for index, (width, depth) in enumerate(zip(self.channels, (1, 2, 7, 12), strict=True)):
            blocks = nn.ModuleList()
            for number in range(depth):
                stride = 1 if number else 2
                block = Part(
                    conv1=nn.Conv2d(before, width, 1, bias=False),
                    bn1=nn.BatchNorm2d(width),
                    conv2=nn.Conv2d(width, width, 3, stride, 1, groups=width // 16, bias=False),
                    bn2=nn.BatchNorm2d(width),
                    conv3=nn.Conv2d(width, width, 1, bias=False),
                    bn3=nn.BatchNorm2d(width),
                )
                if number == 0:
                    conv = nn.Conv2d(before, width, 1, stride, bias=False)
                    block.downsample = nn.Sequential(conv, nn.BatchNorm2d(width))
                blocks.append(block)
                before = width
            setattr(self, f"layer{index + 1}", blocks)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        maps = []
        for index in range(4):
            for block in getattr(self, f"layer{index + 1}"):
                hidden = F.relu(block.bn1(block.conv1(x)))
                hidden = block.bn3(block.conv3(F.relu(block.bn2(block.conv2(hidden)))))
                x = F.relu(hidden + (block.downsample(x) if hasattr(block, "downsample") else x))
            maps.append(x)
        return maps


NETS = {"swin": Swin, "convnext": ConvNeXt, "regnet": RegNetX}
