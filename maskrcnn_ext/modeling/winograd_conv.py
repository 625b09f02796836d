"""Detectron2's ``Conv2d`` by Winograd's algorithm, for training on a CPU."""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn

from maskrcnn_ext.compat import change_class, is_recording
from maskrcnn_ext.ops import winograd
from maskrcnn_ext.ops.winograd import winograd_convolution
from maskrcnn_ext.ops.workspace import Workspace


class WinogradConv2d(Conv2d):
    """A 3 x 3 ``Conv2d`` with stride 1 and padding 1 that uses Winograd's algorithm in float32 on a CPU, and is unchanged elsewhere.

    It is unchanged in exported programs, too.
    """

    workspace: Workspace

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, O, H, W) for (N, I, H, W)."""
        if (
            not x.dtype == self.weight.dtype == torch.float32
            or x.device.type != "cpu"
            or torch.is_autocast_enabled("cpu")
            or is_recording()
        ):
            return super().forward(x)
        x = winograd_convolution(x, self.weight, self.bias, self.workspace)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)


def use_winograd(model: nn.Module) -> int:
    """Makes the convolutions of a model for which Winograd's algorithm is faster use it. Parameters and their names stay.

    Returns:
        The number of these convolutions.

    Raises:
        OSError: the compiled library is missing.
    """
    winograd.library()
    workspace, count = Workspace(), 0
    for module in model.modules():
        if type(module) is Conv2d and _benefits_from_winograd(module):
            change_class(module, WinogradConv2d).workspace = workspace
            count += 1
    return count


def _benefits_from_winograd(conv: Conv2d) -> bool:
    plain = (conv.stride, conv.padding, conv.dilation) == ((1, 1),) * 3 and conv.groups == 1
    return plain and conv.padding_mode == "zeros" and winograd.fits(conv.weight)
