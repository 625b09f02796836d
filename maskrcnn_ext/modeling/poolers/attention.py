"""Attention between the bins of a box: generalised attention by relative position (arXiv:1904.05873) and non-local (arXiv:1711.07971)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maskrcnn_ext.errors import InputError

# Bins per axis between two keys.
_KEY_STRIDE = 2
# The longest wave of the position embedding has about this many bins, over 2 pi.
_WAVE_LENGTH = 1000


class RelativePositionAttention(nn.Module):
    """Weights the other bins by the query's content and their relative position, and adds the result to the input.

    This is the second of the four terms of generalised attention (arXiv:1904.05873, equation 3), which GRoIE uses: keys are every second
    bin, and their content has no influence on the weights. It starts as the identity.
    """

    def __init__(self, channels: int, size: tuple[int, int], *, num_heads: int = 6) -> None:
        """Builds the layers.

        Args:
            channels: C of the features.
            size: height and width in bins.
            num_heads: each has ``channels // num_heads`` channels.

        Raises:
            InputError: fewer than 4 channels, or than ``num_heads``.
        """
        super().__init__()
        if channels < max(num_heads, 4):
            raise InputError(
                f"attention of {num_heads} heads needs {max(num_heads, 4)} or more channels, not channels={channels}: set num_heads=1 "
                "on this pooler, or post=conv"
            )
        self.num_heads = num_heads
        inner = channels // num_heads * num_heads
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.position_y = nn.Linear(channels // 4 * 2, inner, bias=False)
        self.position_x = nn.Linear(channels // 4 * 2, inner, bias=False)
        self.out = nn.Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        for layer in (self.query, self.value, self.position_y, self.position_x, self.out):
            bound = math.sqrt(3 / layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.zeros_(self.out.bias)
        for axis, bins in zip("yx", size, strict=True):
            # Constants, not saved in checkpoints.
            self.register_buffer(f"embedding_{axis}", _embed_distances(bins, channels // 4), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (M, C, h, w) to the same shape."""
        query = self.query(features).unflatten(1, (self.num_heads, -1))
        value = self.value(features[:, :, ::_KEY_STRIDE, ::_KEY_STRIDE]).unflatten(1, (self.num_heads, -1))
        # One distance along each axis: (bins, keys, heads, channels of a head).
        along_y = self.position_y(self.embedding_y).unflatten(-1, (self.num_heads, -1)) / math.sqrt(2)
        along_x = self.position_x(self.embedding_x).unflatten(-1, (self.num_heads, -1)) / math.sqrt(2)
        energy_y = torch.einsum("mndhw,hknd->mnhwk", query, along_y)
        energy_x = torch.einsum("mndhw,wknd->mnhwk", query, along_x)
        # The softmax of a sum over the grid of keys is the product of the softmaxes over its rows and its columns.
        weights = energy_y.softmax(-1)[..., :, None] * energy_x.softmax(-1)[..., None, :]
        gathered = weights.flatten(4).flatten(2, 3) @ value.flatten(3).transpose(2, 3)
        gathered = gathered.transpose(2, 3).flatten(1, 2).unflatten(2, features.shape[2:])
        return features + self.gamma * self.out(gathered)


def _embed_distances(bins: int, frequencies: int) -> Tensor:
    """Returns the sines, then the cosines, of the distance from each bin to each key along an axis: (bins, keys, 2 * frequencies)."""
    positions = torch.arange(bins, dtype=torch.float64)
    distances = positions[:, None] - positions[::_KEY_STRIDE]
    waves = _WAVE_LENGTH ** (torch.arange(frequencies, dtype=torch.float64) / frequencies)
    angles = distances[..., None] / waves
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class NonLocal(nn.Module):
    """Self-attention between the bins (embedded Gaussian), added to the input (arXiv:1711.07971, equations 1 to 6)."""

    def __init__(self, channels: int) -> None:
        """Builds the layers for (M, channels, h, w)."""
        super().__init__()
        self.hidden = max(channels // 2, 1)
        self.embed = nn.Conv2d(channels, 3 * self.hidden, 1)
        self.out = nn.Conv2d(self.hidden, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (M, C, h, w) to the same shape."""
        query, key, value = self.embed(features).flatten(2).split(self.hidden, dim=1)
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)
        return features + self.out((value @ attention.transpose(1, 2)).unflatten(2, features.shape[2:]))
