"""Convolutions for inference: the norm folded into the weights, the activation and the residual sum fused into the kernel."""

from __future__ import annotations

import enum

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.compat import fused_cpu_convolution
from maskrcnn_ext.ops import pointwise, winograd
from maskrcnn_ext.ops.native import loads
from maskrcnn_ext.ops.pointwise import pointwise_conv2d, upsampling_conv2d, upsampling_weight
from maskrcnn_ext.ops.winograd import fits, transform_weight, winograd_conv2d
from maskrcnn_ext.ops.workspace import Workspace

_RELUS = (F.relu, F.relu_, torch.relu)
_MIN_OUTPUTS = 32


class _Method(enum.Enum):
    """Who convolves."""

    POINTWISE = enum.auto()
    WINOGRAD = enum.auto()
    ONEDNN = enum.auto()
    PLAIN = enum.auto()


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

    On a CPU, float32 convolutions of 1 x 1 are products of matrices, and those of 3 x 3 Winograd's with fewer multiplications, both into
    memory that is used again, where what surrounds the products is compiled. All others are oneDNN's, or else PyTorch's own. The sum with
    a residual and the ReLU happen while the output is written. The output is channels-last, of the type of the weights.
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
        self.dtype, self.workspace = dtype, workspace
        self.stride, self.padding, self.dilation = list(conv.stride), list(conv.padding), list(conv.dilation)
        self.groups = conv.groups
        weight, bias = (value.to(dtype) for value in parameters)
        self.method = self._choose(weight)
        # No buffers: what is arranged for this machine's kernels is not for a state dict.
        if self.method is _Method.POINTWISE:
            self.weight = weight[:, :, 0, 0].T.contiguous()
        elif self.method is _Method.WINOGRAD:
            self.weight = transform_weight(parameters[0]).float().contiguous()
        else:
            self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, H', W')."""
        x = self._compute(x, None, relu=self.relu)
        return x if self.activation is None else self.activation(x)

    def add_relu(self, x: Tensor, residual: Tensor, *, overwrite: bool = False) -> Tensor:
        """Returns relu(convolution of x + residual), where `overwrite` allows it in the place of the residual."""
        return self._compute(x, residual, relu=True, overwrite=overwrite)

    def add_upsampled(self, x: Tensor, residual: Tensor) -> Tensor:
        """Returns convolution of x + a residual of half the size, each of whose pixels counts for four; without activation."""
        if self.method is not _Method.POINTWISE:
            residual = F.interpolate(self._input(residual), scale_factor=2.0, mode="nearest")
        return self._compute(x, residual, relu=False)

    def as_matrix(self) -> tuple[Tensor, Tensor] | None:
        """Returns weights (C, out_channels) and bias where this is nothing but a product of matrices in float32, else None."""
        if self.relu or self.activation is not None or self.stride != [1, 1] or self.dtype != torch.float32:
            return None
        if self.method is _Method.POINTWISE:
            return self.weight, self.bias
        if self.weight.shape[2:] == (1, 1) and self.padding == [0, 0] and self.groups == 1:
            return self.weight[:, :, 0, 0].T.contiguous(), self.bias
        return None

    def _compute(self, x: Tensor, residual: Tensor | None, *, relu: bool, overwrite: bool = False) -> Tensor:
        x = self._input(x)
        residual = None if residual is None else self._input(residual)
        if self.method is _Method.POINTWISE:
            return pointwise_conv2d(
                x,
                self.weight,
                self.bias,
                self.workspace,
                stride=self.stride[0],
                relu=relu,
                residual=residual,
                overwrite=overwrite,
            )
        if self.method is _Method.WINOGRAD:
            return winograd_conv2d(x, self.weight, self.bias, self.workspace, relu=relu, residual=residual)
        shape = self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        if self.method is _Method.ONEDNN and x.numel():
            operator = fused_cpu_convolution()
            if residual is None:
                return operator(x, *shape, "relu" if relu else "none", [], "")
            return operator.binary(x, residual, *shape, "add", 1.0, "relu" if relu else None, [], "")
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        x = x if residual is None else x.add_(residual)
        return F.relu_(x) if relu else x

    def _choose(self, weight: Tensor) -> _Method:
        if weight.device.type != "cpu":
            return _Method.PLAIN
        plain = self.groups == 1 and self.dilation == [1, 1] and weight.dtype == torch.float32
        if plain and self.stride == [1, 1] and self.padding == [1, 1] and fits(weight) and loads(winograd.library):
            return _Method.WINOGRAD
        # Of a few outputs, products of matrices are slow.
        one = weight.shape[2:] == (1, 1) and self.padding == [0, 0] and self.stride[0] == self.stride[1]
        if plain and one and len(weight) >= _MIN_OUTPUTS and loads(pointwise.library):
            return _Method.POINTWISE
        return _Method.ONEDNN if fused_cpu_convolution() else _Method.PLAIN

    def _input(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)


class FusedUpsampling(nn.Module):
    """A transposed convolution of 2 x 2 pixels with stride 2, in float32 on a CPU.

    Attributes:
        relu: whether a ReLU follows.
    """

    def __init__(self, deconv: nn.ConvTranspose2d, *, workspace: Workspace) -> None:
        """Takes over a transposed convolution of which :func:`is_upsampling` is true."""
        super().__init__()
        self.workspace, self.relu = workspace, False
        self.weight = upsampling_weight(deconv.weight.detach().float())
        self.bias = torch.zeros(deconv.out_channels) if deconv.bias is None else deconv.bias.detach().float()

    def forward(self, x: Tensor, then: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(N, I, H, W) to (N, O, 2 H, 2 W); with `then`, see :func:`maskrcnn_ext.ops.pointwise.upsampling_conv2d`, to (N, 1, 2 H, 2 W)."""
        x = x.float().contiguous(memory_format=torch.channels_last)
        return upsampling_conv2d(x, self.weight, self.bias, self.workspace, relu=self.relu, then=then)


def is_upsampling(module: nn.Module) -> bool:
    """Whether :class:`FusedUpsampling` can take a module over."""
    return (
        isinstance(module, nn.ConvTranspose2d)
        and (module.kernel_size, module.stride, module.padding) == ((2, 2), (2, 2), (0, 0))
        and (module.output_padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
        and module.weight.device.type == "cpu"
        and loads(pointwise.library)
    )


def fuses(module: nn.Module) -> bool:
    """Whether a module is a convolution that :class:`FusedConv2d` can take over."""
    return (
        type(module) in (Conv2d, nn.Conv2d)
        and folded(module) is not None
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )
