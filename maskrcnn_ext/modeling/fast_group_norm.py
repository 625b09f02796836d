"""GroupNorm of any network with faster passes for channels-last maps, for training on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_ext.compat import change_class, is_recording
from maskrcnn_ext.ops import group_norm


class FastGroupNorm(nn.GroupNorm):
    """Uses :func:`.group_norm.group_norm` for channels-last inputs on a CPU, and is unchanged elsewhere and in exported programs."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, H, W) for (N, C, H, W)."""
        applies = (
            x.dim() == 4 and not x.is_contiguous() and group_norm.supports(x) and self.weight.dtype == torch.float32
        )
        if is_recording() or not applies:
            return super().forward(x)
        return group_norm.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def use_fast_group_norm(model: nn.Module) -> int:
    """Makes the GroupNorm layers of a model use the faster passes where they apply. Parameters and their names stay.

    Returns:
        The number of these layers.

    Raises:
        OSError: the compiled library is missing.
    """
    group_norm.library()
    layers = [module for module in model.modules() if type(module) is nn.GroupNorm and module.affine]
    for layer in layers:
        change_class(layer, FastGroupNorm)
    return len(layers)
