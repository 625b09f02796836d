"""Rotary position embeddings of plain ViTs (arXiv:2104.09864), for images whose size stays variable in an exported graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_ext.common.extras import require


class RotaryPositions(nn.Module):
    """timm's rotary embeddings, computed in operators that every exporter knows if the size of the map is a tracer's.

    timm makes numbers of the sides of a map (DINOv3), which a graph then keeps for other images, or uses an operator that ONNX's
    exporter translates wrongly (EVA-02).
    """

    def __init__(self, rope: nn.Module) -> None:
        """Wraps timm's module, which has no weights; see :func:`use_rotary_positions` for the supported ones."""
        super().__init__()
        self.rope: Any = rope
        self.is_centered = hasattr(rope, "periods")

    def get_embed(self, shape: Sequence[Any]) -> Tensor:
        """Returns the sines, then the cosines, of the positions of a map: (height * width, 2 * channels of a head).

        Args:
            shape: (height, width); numbers in eager mode, a tracer's values in a graph.
        """
        if all(type(side) is int for side in shape):
            embedding: Tensor = self.rope.get_embed(shape=list(shape))
            return embedding
        height, width = shape
        rows, columns = (self._angles(side, axis) for axis, side in enumerate(shape))
        grids = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
        order = 1 if self.rope.grid_indexing == "ij" else -1
        angles = torch.cat(grids[::order], dim=-1).flatten(0, 1)
        # Each angle applies to two channels: those of both halves of a head, or two neighbours.
        angles = torch.cat([angles] * 2, -1) if self.rope.rotate_half else torch.stack([angles] * 2, -1).flatten(1)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def _angles(self, side: Any, axis: int) -> Tensor:
        """Returns the angles (side, channels of a head / 4) of the positions along an axis."""
        frequencies = 2 * math.pi / self.rope.periods if self.is_centered else self.rope.bands
        place = torch.arange(side, device=frequencies.device).to(frequencies.dtype) + self.rope.grid_offset
        if self.is_centered:  # from -1 to 1
            place = 2 * (place + 0.5) / side - 1
        elif self.rope.ref_feat_shape is not None:  # as in the map of the pre-training
            place = place / side * self.rope.ref_feat_shape[axis]
        return place[:, None] * frequencies


def use_rotary_positions(net: nn.Module) -> None:
    """Wraps the rotary embeddings of a plain ViT by :class:`RotaryPositions`, in place; leaves other networks as they are."""
    rope: Any = getattr(net, "rope", None)
    layers = require("timm.layers", extra="timm", purpose="this backbone")
    if type(rope) is layers.RotaryEmbeddingCat:
        is_supported = rope.grid_type == "index" and rope.feat_shape is None
    else:
        is_supported = type(rope) is layers.RotaryEmbeddingDinoV3 and rope.normalize_coords == "separate"
    if is_supported:
        net.rope = RotaryPositions(rope)
