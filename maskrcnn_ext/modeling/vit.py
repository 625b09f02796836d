"""What ViTDet's configs need as named functions, so that they can be saved to YAML (a lambda or a partial cannot)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn


def layer_norm(channels: int) -> nn.LayerNorm:
    """The LayerNorm of the MAE weights that ViTDet starts from (arXiv:2203.16527): epsilon 1e-6 where torch's default is 1e-5."""
    return nn.LayerNorm(channels, eps=1e-6)


def layer_decay(*, num_layers: int, rate: float) -> Callable[[str], float]:
    """Returns a parameter name's learning-rate factor, ``rate ** (num_layers + 1 - layer)`` (layer-wise decay, arXiv:2003.10555)."""
    from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

    return partial(get_vit_lr_decay_rate, num_layers=num_layers, lr_decay_rate=rate)
