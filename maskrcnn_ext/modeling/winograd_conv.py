"""Detectron2's ``Conv2d`` by Winograd's algorithm, for training on a CPU."""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn

from maskrcnn_ext.compat import change_class
from maskrcnn_ext.ops import winograd
from maskrcnn_ext.ops.winograd_autograd import winograd_convolution
from maskrcnn_ext.ops.workspace import Workspace


class WinogradConv2d(Conv2d):
    """A ``Conv2d`` of 3 x 3 kernels with stride 1 and padding 1: Winograd's in float32 on a CPU, else as it was."""

    workspace: Workspace

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, H, W) to (N, O, H, W)."""
        if (
            not x.dtype == self.weight.dtype == torch.float32
            or x.device.type != "cpu"
            or torch.is_autocast_enabled("cpu")
        ):
            return super().forward(x)
        x = winograd_convolution(x, self.weight, self.bias, self.workspace)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)


def use_winograd(model: nn.Module) -> int:
    """Makes the convolutions of a model that Winograd's algorithm suits use it; parameters and their names stay.

    Returns:
        How many there are.

    Raises:
        OSError: the compiled library is not there.
    """
    winograd.library()
    workspace, count = Workspace(), 0
    for module in model.modules():
        if type(module) is Conv2d and _suits(module):
            change_class(module, WinogradConv2d).workspace = workspace
            count += 1
    return count


def _suits(conv: Conv2d) -> bool:
    plain = (conv.stride, conv.padding, conv.dilation) == ((1, 1),) * 3 and conv.groups == 1
    return plain and conv.padding_mode == "zeros" and winograd.fits(conv.weight)
