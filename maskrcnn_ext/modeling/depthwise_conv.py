"""Depthwise convolutions of any network with a faster backward pass, for training on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.compat import change_class, is_recording
from maskrcnn_ext.ops import depthwise


class DepthwiseConv2d(nn.Conv2d):
    """Uses :func:`.depthwise.depthwise_conv2d` for channels-last inputs on a CPU if gradients are computed, and is unchanged elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, h, w) for (N, C, H, W)."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        applies = torch.is_grad_enabled() and dtype in depthwise.DTYPES and depthwise.supports(x)
        if is_recording() or not applies:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.to(dtype)
        padding = int(self.padding[0]), int(self.padding[1])
        x = self._pad(x.to(dtype)).contiguous(memory_format=torch.channels_last)
        return depthwise.depthwise_conv2d(x, self.weight.to(dtype), bias, self.stride[0], padding)

    def _pad(self, x: Tensor) -> Tensor:
        return x


class _DepthwiseConv2dSame(DepthwiseConv2d):
    """The same for timm's ``Conv2dSame``, which pads more at the bottom and right than at the top and left."""

    def _pad(self, x: Tensor) -> Tensor:
        layers = require("timm.layers", extra="timm", purpose="this backbone")
        padded: Tensor = layers.pad_same(x, self.kernel_size, self.stride)
        return padded

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle finds classes by name, and the class of this module is made from timm's.
        return _new_same, (type(self).__bases__[1],), vars(self)


def _new_same(plain: type[nn.Conv2d]) -> nn.Module:
    """Returns an instance without state, for pickle."""
    faster = _faster_class(plain)
    assert faster is not None
    return faster.__new__(faster)


def use_fast_depthwise(model: nn.Module) -> int:
    """Makes the depthwise convolutions of a model use the faster backward pass where it applies. Parameters and their names stay.

    Returns:
        The number of these convolutions.

    Raises:
        OSError: the compiled library is missing.
    """
    depthwise.library()
    count = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _benefits(module):
            faster = _faster_class(type(module))
            if faster is not None:
                change_class(module, faster)
                count += 1
    return count


def _faster_class(plain: type[nn.Conv2d]) -> type[DepthwiseConv2d] | None:
    """Returns the faster subclass of a class of convolutions; None for unknown ones. timm's class is known only where it is installed."""
    if plain is nn.Conv2d:
        return DepthwiseConv2d
    if (plain.__module__, plain.__name__) == ("timm.layers.conv2d_same", "Conv2dSame"):
        return type("DepthwiseConv2dSame", (_DepthwiseConv2dSame, plain), {})
    return None


def _benefits(conv: nn.Conv2d) -> bool:
    plain = conv.dilation == (1, 1) and conv.padding_mode == "zeros" and conv.stride in ((1, 1), (2, 2))
    return plain and not isinstance(conv.padding, str) and depthwise.fits(conv.weight, conv.groups, conv.stride[0])
