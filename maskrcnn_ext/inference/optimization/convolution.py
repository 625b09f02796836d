"""Fused convolutions for inference: the norm is folded into the weights; bias, residual sum and activation are epilogues of the kernel."""

from __future__ import annotations

import enum
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.compat import cpu_instructions, fused_cpu_convolution, is_batch_norm
from maskrcnn_ext.ops import group_norm, pointwise, predictors, winograd
from maskrcnn_ext.ops.group_norm import group_norm_
from maskrcnn_ext.ops.native import loads
from maskrcnn_ext.ops.pointwise import pointwise_conv2d, upsampling_conv2d, upsampling_weight
from maskrcnn_ext.ops.winograd import fills_tiles, fits, transform_weight, winograd_conv2d
from maskrcnn_ext.ops.workspace import Workspace

_RELUS = (F.relu, F.relu_, torch.relu)
# Activation -> oneDNN's name and constants of it.
ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
    nn.Sigmoid: ("sigmoid", []),
    nn.Hardsigmoid: ("hardsigmoid", []),
}
# With fewer output channels, a 1 x 1 convolution as a GEMM is slower than oneDNN's kernel.
_MIN_GEMM_CHANNELS = 32


class _Kernel(enum.Enum):
    """The implementation that computes a convolution."""

    POINTWISE = enum.auto()
    WINOGRAD = enum.auto()
    ONEDNN = enum.auto()
    TORCH = enum.auto()


def fold_norm(conv: nn.Conv2d) -> tuple[Tensor, Tensor] | None:
    """Returns a convolution's weight (O, I, h, w) and bias (O,) with its norm folded in, in float64.

    Returns None if the norm's statistics depend on the input.

    Example:
        >>> from detectron2.layers import FrozenBatchNorm2d
        >>> conv = Conv2d(3, 8, 1, bias=False, norm=FrozenBatchNorm2d(8))
        >>> weight, bias = fold_norm(conv)
        >>> tuple(weight.shape), tuple(bias.shape)
        ((8, 3, 1, 1), (8,))
    """
    weight = conv.weight.detach().double()
    bias = (
        torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        if conv.bias is None
        else conv.bias.detach().double()
    )
    norm = getattr(conv, "norm", None)
    if norm is None:
        return weight, bias
    if not (isinstance(norm, FrozenBatchNorm2d) or is_batch_norm(norm)) or norm.running_mean is None:
        return None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = 0.0 if norm.bias is None else norm.bias.detach().double()
    return weight * scale[:, None, None, None], (bias - norm.running_mean.double()) * scale + shift


class FusedConv2d(nn.Module):
    """A Detectron2 ``Conv2d`` for inference, with folded norm and fused epilogue (bias, residual sum, activation).

    On a CPU, float32 convolutions of 1 x 1 pixels are GEMMs, and those of 3 x 3 use Winograd's algorithm, which needs fewer
    multiplications. Both write into a shared workspace and need the package's compiled kernels. In bfloat16, only large maps of 256
    channels use Winograd's algorithm, on a CPU without AMX. All others use oneDNN if PyTorch has it, else PyTorch's own kernel. The
    epilogue runs while the output is written. The output is channels-last, with the dtype of the weights.
    """

    def __init__(self, conv: nn.Conv2d, *, dtype: torch.dtype, workspace: Workspace, relu: bool = False) -> None:
        """Builds the fused form of a convolution.

        Args:
            conv: a convolution for which :func:`is_fusible_conv` is true.
            dtype: dtype of weights, input and output.
            workspace: memory that all convolutions of a model share.
            relu: whether to apply a ReLU even if `conv` has none.

        Raises:
            ValueError: the norm of `conv` cannot be folded, or its padding is not a number of zeros.
        """
        super().__init__()
        parameters = fold_norm(conv)
        if parameters is None or isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise ValueError(f"this convolution cannot be fused: {conv}")
        activation = getattr(conv, "activation", None)
        self.relu = relu or activation in _RELUS or type(activation) is nn.ReLU
        self.activation = None if self.relu else activation
        self.dtype, self.workspace = dtype, workspace
        self.stride, self.padding, self.dilation = list(conv.stride), list(conv.padding), list(conv.dilation)
        self.groups = conv.groups
        self._take_weights(*parameters)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, out_channels, H', W')."""
        if self.kernel is _Kernel.ONEDNN and x.numel() and type(self.activation) in ACTIVATIONS:
            return fused_cpu_convolution()(self._input(x), *self._arguments(), *ACTIVATIONS[type(self.activation)], "")
        x = self._compute(x, None, relu=self.relu)
        return x if self.activation is None else self.activation(x)

    def add(self, x: Tensor, residual: Tensor, *, relu: bool, overwrite: bool = False) -> Tensor:
        """Returns conv(x) + residual, after a ReLU if `relu`. With `overwrite`, it may be written into the memory of the residual."""
        return self._compute(x, residual, relu=relu, overwrite=overwrite)

    def add_upsampled(self, x: Tensor, residual: Tensor) -> Tensor:
        """Returns conv(x) + residual without activation; the residual has half the size and is upsampled to the nearest pixel."""
        if self.kernel is not _Kernel.POINTWISE:
            residual = F.interpolate(self._input(residual), scale_factor=2.0, mode="nearest")
        return self._compute(x, residual, relu=False)

    def as_matrix(self) -> tuple[Tensor, Tensor] | None:
        """Returns weight (C, out_channels) and bias if this is a plain GEMM in float32 (1 x 1, no activation), else None."""
        if self.relu or self.activation is not None or self.stride != [1, 1] or self.dtype != torch.float32:
            return None
        if self.kernel is _Kernel.POINTWISE:
            return self.weight, self.bias
        if self.weight.shape[2:] == (1, 1) and self.padding == [0, 0] and self.groups == 1:
            return self.weight[:, :, 0, 0].T.contiguous(), self.bias
        return None

    def _take_weights(self, exact: Tensor, bias: Tensor) -> None:
        """Stores weight (O, I / groups, h, w) and bias (O,), given in float64, in the layout of the kernel."""
        weight = exact.to(self.dtype)
        self.kernel = self._choose_kernel(weight)
        self.winograd_weight: Tensor | None = None
        if self.kernel is _Kernel.ONEDNN and self._suits_winograd(weight) and "AMX" not in cpu_instructions():
            self.winograd_weight = transform_weight(exact).float().contiguous()
        # Not buffers: the layout is that of this machine's kernels and must not get into a state dict.
        if self.kernel is _Kernel.POINTWISE:
            self.weight = weight[:, :, 0, 0].T.contiguous()
        elif self.kernel is _Kernel.WINOGRAD:
            self.weight = transform_weight(exact).float().contiguous()
        else:
            self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias.to(self.dtype)

    def _compute(self, x: Tensor, residual: Tensor | None, *, relu: bool, overwrite: bool = False) -> Tensor:
        x = self._input(x)
        residual = None if residual is None else self._input(residual)
        if self.kernel is _Kernel.POINTWISE:
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
        if self.kernel is _Kernel.WINOGRAD:
            return winograd_conv2d(x, self.weight, self.bias, self.workspace, relu=relu, residual=residual)
        if self.winograd_weight is not None and fills_tiles(x):
            weight, bias = self.winograd_weight, self.bias.float()
            return winograd_conv2d(x, weight, bias, self.workspace, relu=relu, residual=residual)
        parameters = self._arguments()
        if self.kernel is _Kernel.ONEDNN and x.numel():
            operator = fused_cpu_convolution()
            if residual is None:
                return operator(x, *parameters, "relu" if relu else "none", [], "")
            return operator.binary(x, residual, *parameters, "add", 1.0, "relu" if relu else None, [], "")
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        x = x if residual is None else x.add_(residual)
        return F.relu_(x) if relu else x

    def _arguments(self) -> tuple[Any, ...]:
        return self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups

    def _choose_kernel(self, weight: Tensor) -> _Kernel:
        if weight.device.type != "cpu":
            return _Kernel.TORCH
        is_plain = self.groups == 1 and self.dilation == [1, 1] and weight.dtype == torch.float32
        if weight.dtype == torch.float32 and self._suits_winograd(weight):
            return _Kernel.WINOGRAD
        is_gemm = weight.shape[2:] == (1, 1) and self.padding == [0, 0] and self.stride[0] == self.stride[1]
        if is_plain and is_gemm and len(weight) >= _MIN_GEMM_CHANNELS and loads(pointwise.library):
            return _Kernel.POINTWISE
        return _Kernel.ONEDNN if fused_cpu_convolution(weight.dtype) else _Kernel.TORCH

    def _suits_winograd(self, weight: Tensor) -> bool:
        sizes = self.groups, self.dilation, self.stride, self.padding
        return sizes == (1, [1, 1], [1, 1], [1, 1]) and fits(weight) and loads(winograd.library)

    def _input(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)


class GroupNormConv2d(nn.Module):
    """A convolution on a CPU, and the group normalisation and ReLU that follow, computed in place.

    Attributes:
        relu: whether a ReLU is applied to the output.
    """

    def __init__(self, conv: FusedConv2d, norm: nn.GroupNorm, *, relu: bool) -> None:
        """Takes over a convolution without activation, and the parameters of a norm."""
        super().__init__()
        self.conv, self.relu, self.activation = conv, relu, None
        self.groups, self.epsilon = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight.detach().float(), norm.bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, out_channels, H', W')."""
        return group_norm_(self.conv(x), self.groups, self.weight, self.bias, self.epsilon, relu=self.relu)


class FusedUpsampling(nn.Module):
    """A transposed convolution with 2 x 2 kernels and stride 2, on a CPU.

    Attributes:
        relu: whether a ReLU is applied to the output.
    """

    def __init__(self, deconv: nn.ConvTranspose2d, *, dtype: torch.dtype, workspace: Workspace) -> None:
        """Builds the fused form of a transposed convolution for which :func:`is_fusible_upsampling` is true.

        Args:
            deconv: the layer.
            dtype: of weights and input.
            workspace: memory that all convolutions of a model share.
        """
        super().__init__()
        self.dtype, self.workspace, self.relu = dtype, workspace, False
        self.weight = upsampling_weight(deconv.weight.detach().to(dtype))
        self.bias = torch.zeros(deconv.out_channels) if deconv.bias is None else deconv.bias.detach().float()

    def forward(self, x: Tensor, then: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Maps (N, I, H, W) to (N, O, 2 H, 2 W) of its dtype.

        Args:
            x: feature maps.
            then: weights (N, O) and bias (N,) of a 1 x 1 convolution to one channel that follows; the result is then (N, 1, 2 H, 2 W) in
                float32. See :func:`maskrcnn_ext.ops.pointwise.upsampling_conv2d`.
        """
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if then is None and self.dtype != torch.float32:
            products = x.permute(0, 2, 3, 1).flatten(0, 2) @ self.weight
            products = products.add_(self.bias.to(self.dtype).repeat(4))
            return _spread(F.relu_(products) if self.relu else products, x)
        return upsampling_conv2d(x, self.weight, self.bias, self.workspace, relu=self.relu, then=then)


def _spread(products: Tensor, x: Tensor) -> Tensor:
    """Returns products (N * H * W, 4 * O) of the pixels of maps `x` (N, I, H, W) as maps (N, O, 2 H, 2 W), channels-last."""
    number, _, height, width = x.shape
    pixels = products.view(number, height, width, 2, 2, products.shape[1] // 4).transpose(2, 3)
    return pixels.reshape(number, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def is_fusible_upsampling(module: nn.Module) -> bool:
    """Whether :class:`FusedUpsampling` can replace a module."""
    return (
        isinstance(module, nn.ConvTranspose2d)
        and (module.kernel_size, module.stride, module.padding) == ((2, 2), (2, 2), (0, 0))
        and (module.output_padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
        and module.weight.device.type == "cpu"
        and loads(pointwise.library)
        and loads(predictors.library)
    )


def is_fusible_conv(module: nn.Module) -> bool:
    """Whether :class:`FusedConv2d` can replace a module."""
    return (
        type(module) in (Conv2d, nn.Conv2d)
        and fold_norm(module) is not None
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )


def is_group_norm_conv(module: nn.Module) -> bool:
    """Whether a module is a convolution with affine group normalisation, on a CPU, that :class:`GroupNormConv2d` can replace."""
    norm: Any = getattr(module, "norm", None)
    return (
        type(module) is Conv2d
        and type(norm) is nn.GroupNorm
        and norm.affine
        and (module.activation is None or module.activation in _RELUS or type(module.activation) is nn.ReLU)
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
        and module.weight.device.type == "cpu"
        and loads(group_norm.library)
    )


def as_detectron2(conv: nn.Conv2d, norm: nn.Module | None = None, activation: nn.Module | None = None) -> Conv2d:
    """Returns Detectron2's convolution with the weights of another, the norm and the activation."""
    sizes = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    with torch.device("meta"):
        layer = Conv2d(conv.in_channels, conv.out_channels, *sizes, norm=norm, activation=activation)
    layer.weight, layer.bias, layer.padding_mode = conv.weight, conv.bias, conv.padding_mode
    return layer
