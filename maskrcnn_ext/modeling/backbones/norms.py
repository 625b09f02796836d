"""Freezes or synchronises the BatchNorm layers of a network, those of timm with their activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.compat import is_batch_norm


class FrozenBatchNormAct(FrozenBatchNorm2d):
    """A FrozenBatchNorm2d with the activation (and drop layer) that timm keeps inside its BatchNorm.

    Example:
        >>> FrozenBatchNormAct(1, 1e-5, nn.ReLU())(torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)).flatten()
        tensor([0., 1.])
    """

    def __init__(self, num_features: int, eps: float, act: nn.Module, drop: nn.Module | None = None) -> None:
        """Builds.

        Args:
            num_features: channels.
            eps: added to the variance.
            act: activation after the norm.
            drop: layer between them.
        """
        super().__init__(num_features, eps)
        self.act = act
        self.drop = drop if drop is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return self.act(self.drop(super().forward(x)))


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a module contains a BatchNorm that is not frozen."""
    return any(is_batch_norm(child) for child in module.modules())


def freeze_batch_norm(module: nn.Module, is_chosen: Callable[[nn.Module], bool] = lambda _: True) -> nn.Module:
    """Replaces BatchNorm layers by frozen ones with the same statistics, weights and activation, in place.

    Args:
        module: changed in place, unless it is itself a BatchNorm.
        is_chosen: whether to replace a BatchNorm.

    Returns:
        The module, or its replacement.
    """
    if is_batch_norm(module):
        return _frozen(module) if is_chosen(module) else module
    for name, child in module.named_children():
        replacement = freeze_batch_norm(child, is_chosen)
        if replacement is not child:
            setattr(module, name, replacement)
    return module


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Replaces BatchNorm layers by SyncBatchNorm, which has the statistics of all GPUs, and keeps activations."""
    converted: nn.Module = require("timm.layers", extra="timm", purpose="this backbone").convert_sync_batchnorm(module)
    return converted


def _frozen(norm: nn.Module) -> nn.Module:
    with torch.device(norm.running_mean.device):
        frozen = (
            FrozenBatchNormAct(norm.num_features, norm.eps, norm.act, norm.drop)
            if hasattr(norm, "act")
            else FrozenBatchNorm2d(norm.num_features, norm.eps)
        )
    frozen.running_mean.copy_(norm.running_mean)
    frozen.running_var.copy_(norm.running_var)
    if norm.affine:
        frozen.weight.copy_(norm.weight.detach())
        frozen.bias.copy_(norm.bias.detach())
    return frozen.train(norm.training)
