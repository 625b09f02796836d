"""Convolutions for inference: the norm folded into the weights, the activation and the residual sum fused into the kernel."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.ops.winograd import Workspace, fits, is_compiled, transform_weight, winograd_conv2d

_RELUS = (F.relu, F.relu_, torch.relu)


def folded(conv: nn.Conv2d) -> tuple[Tensor, Tensor] | None:
    """Returns weights and bias of a convolution with its norm, in float64; None where the norm depends on the input."""
    weight = conv.weight.detach().double()
    bias = (
        torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        if conv.bias is None
        else conv.bias.detach().double()
    )
    norm = getattr(conv, "norm", None)
    if norm is None:
        return weight, bias
    if not isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d) or norm.running_mean is None:
        return None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = 0.0 if norm.bias is None else norm.bias.detach().double()
    return weight * scale[:, None, None, None], (bias - norm.running_mean.double()) * scale + shift


class FusedConv2d(nn.Module):
    """A Detectron2 ``Conv2d`` in inference.

    On a CPU with oneDNN the weights are kept in the order of its kernels, and the ReLU and the sum with a residual happen while the output
    is written. Wide 3 x 3 convolutions in float32 are Winograd's, with fewer multiplications, where its transforms are compiled. Elsewhere
    the operators are PyTorch's own. The output is channels-last, of the type of the weights.
    """

    def __init__(self, conv: nn.Conv2d, *, dtype: torch.dtype, workspace: Workspace, relu: bool = False) -> None:
        """Takes over a convolution.

        Args:
            conv: with a norm that :func:`folded` folds.
            dtype: of weights, input and output.
            workspace: that all convolutions of a model share.
            relu: apply a ReLU, which `conv` need not have.

        Raises:
            ValueError: its norm cannot be folded, or it pads with something else than zeros.
        """
        super().__init__()
        parameters = folded(conv)
        if parameters is None or isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise ValueError(f"not a convolution that can be fused: {conv}")
        activation = getattr(conv, "activation", None)
        self.relu = relu or activation in _RELUS or isinstance(activation, nn.ReLU)
        self.activation = None if self.relu else activation
        self.dtype = dtype
        self.kernel_size, self.stride = list(conv.kernel_size), list(conv.stride)
        self.padding, self.dilation, self.groups = list(conv.padding), list(conv.dilation), conv.groups
        self.out_channels = conv.out_channels
        weight = parameters[0].to(dtype).contiguous(memory_format=torch.channels_last)
        self.workspace = workspace
        self.transformed = transform_weight(weight) if self._is_winograds(weight) else None
        self.packed = weight.device.type == "cpu" and _has_onednn()
        if self.packed:
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, self.padding, self.stride, self.dilation, self.groups
            )
        # No buffers: what is packed for this machine's kernels is not for a state dict.
        self.weight, self.bias = weight, parameters[1].to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H', W')."""
        x = self._input(x)
        if self.transformed is not None:
            x = winograd_conv2d(x, self.transformed, self.bias, self.workspace, relu=self.relu)
        elif self.packed and x.numel():
            post = "relu" if self.relu else "none"
            x = torch.ops.mkldnn._convolution_pointwise(x, *self._arguments(), post, [], "")
        else:
            x = self._plain(x)
            x = F.relu_(x) if self.relu else x
        return x if self.activation is None else self.activation(x)

    def add_relu(self, x: Tensor, residual: Tensor) -> Tensor:
        """Returns relu(convolution of x + residual)."""
        x, residual = self._input(x), self._input(residual)
        if self.packed and x.numel():
            fused: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
                x, residual, *self._arguments(), "add", 1.0, "relu", [], ""
            )
            return fused
        return F.relu_(self._plain(x).add_(residual))

    def _is_winograds(self, weight: Tensor) -> bool:
        plain = (self.stride, self.padding, self.dilation, self.groups) == ([1, 1], [1, 1], [1, 1], 1)
        return (
            plain and weight.dtype == torch.float32 and weight.device.type == "cpu" and fits(weight) and is_compiled()
        )

    def _arguments(self) -> tuple[Any, ...]:
        return self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups

    def _plain(self, x: Tensor) -> Tensor:
        if self.packed:  # nothing to compute, and the packed weights do not tell their size to the plain operator
            sides = [
                (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
                for side, pad, dilation, kernel, stride in zip(
                    x.shape[2:], self.padding, self.dilation, self.kernel_size, self.stride, strict=True
                )
            ]
            return x.new_zeros((x.shape[0], self.out_channels, *sides))
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _input(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)


def fuses(module: nn.Module) -> bool:
    """Whether a module is a convolution that :class:`FusedConv2d` can take over."""
    return (
        type(module) in (Conv2d, nn.Conv2d)
        and folded(module) is not None
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )


def _has_onednn() -> bool:
    """Whether this PyTorch has the operators that its own compiler calls for convolutions on a CPU."""
    wanted = ("_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in wanted)
