"""Named functions for ViTDet's configs, because a config with a lambda or a partial cannot be saved to YAML."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn


def layer_norm(channels: int) -> nn.LayerNorm:
    """Returns the LayerNorm of the MAE weights that ViTDet starts from (arXiv:2203.16527): epsilon 1e-6, not torch's 1e-5."""
    return nn.LayerNorm(channels, eps=1e-6)


def layer_decay(*, num_layers: int, rate: float) -> Callable[[str], float]:
    """Returns a function from parameter names to learning-rate factors ``rate ** (num_layers + 1 - layer)`` (arXiv:2003.10555)."""
    from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate

    return partial(get_vit_lr_decay_rate, num_layers=num_layers, lr_decay_rate=rate)
