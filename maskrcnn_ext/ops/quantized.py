"""Tensors in 8-bit integers: how they are made, and convolutions and matrix products of them by oneDNN's kernels on the CPU.

A value is ``scale * (q - zero_point)``. Activations have one scale a tensor, and q from 0 to 255. Weights have one scale an output channel,
q from -127 to 127, and no zero point.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.compat import onednn_int8
from maskrcnn_ext.ops.native import function, loads

_FILE = Path(__file__).with_name("_quantize.so")
# oneDNN's name of an activation, and its constants.
Activation = tuple[str, list[float]]
NO_ACTIVATION: Activation = ("none", [])


class Scale(NamedTuple):
    """Scale and zero point of a tensor."""

    scale: float
    zero_point: int


class QuantizedMap(NamedTuple):
    """A tensor in 8-bit integers.

    Attributes:
        values: uint8.
        scale: its scale and zero point.
    """

    values: Tensor
    scale: Scale

    @property
    def shape(self) -> torch.Size:
        """Returns the shape of the tensor."""
        return self.values.shape

    def pad(self, sides: Sequence[int]) -> QuantizedMap:
        """Returns the tensor padded with zeros; `sides` as for ``torch.nn.functional.pad``."""
        return QuantizedMap(F.pad(self.values, list(sides), value=self.scale.zero_point), self.scale)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Returns the values as numbers, in the memory format of the integers."""
        scale, zero_point = self.scale
        return ((self.values.float() - zero_point) * scale).to(dtype)


class ConvSizes(NamedTuple):
    """Strides and the like of a convolution."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int


class QuantizedWeight(NamedTuple):
    """Weights in 8-bit integers, in the layout of oneDNN's kernels.

    Attributes:
        packed: the integers.
        scales: (O,) float32.
        zero_points: (O,) int64, all 0.
        sizes: of the convolution; None for a product of matrices.
    """

    packed: Tensor
    scales: Tensor
    zero_points: Tensor
    sizes: ConvSizes | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles the integers, which are packed again: PyTorch can do neither with oneDNN's layout."""
        integers = self.packed.to_dense()
        return _pack, (integers.T if self.sizes is None else integers, self.scales, self.sizes)


@functools.cache
def library() -> Callable[..., None]:
    """Returns the compiled function.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    compiled: Callable[..., None] = function(_FILE, "quantize_1")
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    compiled.argtypes = [pointer, number, pointer, number, real, real, number]  # type: ignore[attr-defined]
    compiled.restype = None  # type: ignore[attr-defined]
    return compiled


def is_supported() -> bool:
    """Whether this CPU has instructions for products of 8-bit integers (VNNI or AMX) and this torch has oneDNN's kernels for them."""
    return onednn_int8() is not None


def scale_of_range(low: float, high: float) -> Scale:
    """Returns the scale of values from `low` to `high`; 0 is always represented exactly.

    Example:
        >>> scale_of_range(0.0, 51.0)
        Scale(scale=0.2, zero_point=0)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-12) / 255
    return Scale(scale, min(max(round(-low / scale), 0), 255))


def quantize(x: Tensor, scale: Scale) -> QuantizedMap:
    """Rounds a tensor on the CPU to the nearest integers, ties to even; values outside the range are clamped.

    Args:
        x: (N, C, H, W) or (N, C), float32 or bfloat16; a map is made channels-last.
        scale: scale and zero point.
    """
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()
    if not loads(library) or x.dtype not in (torch.float32, torch.bfloat16):
        values = (x.float() * (1 / scale.scale) + scale.zero_point).nan_to_num(0).round_().clamp_(0, 255)
        return QuantizedMap(values.to(torch.uint8), scale)
    out = torch.empty_like(x, dtype=torch.uint8)
    pointers = x.data_ptr(), x.dtype == torch.bfloat16, out.data_ptr()
    library()(*pointers, x.numel(), 1 / scale.scale, scale.zero_point, torch.get_num_threads())
    return QuantizedMap(out, scale)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns weights (O, ...) as int8 of the same shape, and their scales (O,) in float32."""
    weight = weight.double()
    scales = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
    integers = (weight / scales.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8)
    return integers, scales.float()


def rounding_shift(weight: Tensor, means: Tensor, groups: int = 1) -> Tensor:
    """Returns what rounding the weights takes from each output on average; the bias makes up for it.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.2.

    Args:
        weight: (O, I / groups, ...) of a convolution, or (O, I) of a fully connected layer.
        means: (I,), of the channels of the input.
        groups: of the convolution.

    Returns:
        (O,) float32
    """
    integers, scales = quantize_weight(weight)
    lost = weight.double() - integers * scales.double().view(-1, *[1] * (weight.dim() - 1))
    of_group = means.double().view(groups, -1).repeat_interleave(len(weight) // groups, 0)
    return (lost.reshape(*lost.shape[:2], -1).sum(2) * of_group).sum(1).float()


def pack_conv_weight(weight: Tensor, sizes: ConvSizes) -> QuantizedWeight:
    """Quantizes weights (O, I / groups, h, w) of a convolution.

    Those of 1 x 1 pixels are matrices: with weights packed for maps of unknown size, oneDNN's convolution ran small maps at a tenth of the
    speed of the product.
    """
    if weight.shape[2:] == (1, 1) and sizes.groups == 1 and list(sizes.padding) == [0, 0]:
        return pack_linear_weight(weight[:, :, 0, 0])
    return _pack(*quantize_weight(weight), sizes)


def pack_linear_weight(weight: Tensor) -> QuantizedWeight:
    """Quantizes weights (O, I) of a fully connected layer."""
    return _pack(*quantize_weight(weight), None)


def _pack(integers: Tensor, scales: Tensor, sizes: ConvSizes | None) -> QuantizedWeight:
    integers = integers.contiguous()  # qlinear_prepack reads memory, not strides
    if sizes is None:
        packed = onednn_int8().qlinear_prepack(integers, None)
    else:
        packed = onednn_int8().qconv_prepack(integers, scales, 1.0, 0, *sizes, None)
    return QuantizedWeight(packed, scales, torch.zeros(len(scales), dtype=torch.int64), sizes)


def quantized_conv2d(
    x: QuantizedMap,
    weight: QuantizedWeight,
    bias: Tensor,
    sizes: ConvSizes,
    output: Scale | torch.dtype,
    *,
    activation: Activation = NO_ACTIVATION,
    residual: QuantizedMap | Tensor | None = None,
) -> QuantizedMap | Tensor:
    """Computes a convolution of integers, with bias, residual sum and activation as its epilogue.

    Args:
        x: (N, I, H, W), channels-last.
        weight: from :func:`pack_conv_weight`.
        bias: (O,) float32.
        sizes: strides and the like.
        output: the scale of a quantized result, or float32 or bfloat16.
        activation: oneDNN's name and constants; after a residual sum, only a ReLU or none.
        residual: (N, O, H', W'), channels-last, added before the activation: quantized if the result is, else of its dtype. It is
            overwritten.

    Returns:
        (N, O, H', W'), channels-last.
    """
    if weight.sizes is not None:
        operator = onednn_int8().qconv2d_pointwise
        return _compute(operator, x, weight, (bias, *sizes), output, activation, residual)
    values = x.values[:, :, :: sizes.stride[0], :: sizes.stride[1]].permute(0, 2, 3, 1)
    shape = values.shape[:3]
    if isinstance(residual, QuantizedMap):
        residual = QuantizedMap(residual.values.permute(0, 2, 3, 1).flatten(0, 2), residual.scale)
    elif residual is not None:
        residual = residual.permute(0, 2, 3, 1).flatten(0, 2)
    pixels = QuantizedMap(values.flatten(0, 2), x.scale)
    result = _compute(onednn_int8().qlinear_pointwise, pixels, weight, (bias,), output, activation, residual)
    if isinstance(result, QuantizedMap):
        return QuantizedMap(result.values.unflatten(0, shape).permute(0, 3, 1, 2), result.scale)
    return result.unflatten(0, shape).permute(0, 3, 1, 2)


def quantized_linear(
    x: QuantizedMap,
    weight: QuantizedWeight,
    bias: Tensor,
    output: Scale | torch.dtype,
    *,
    activation: Activation = NO_ACTIVATION,
) -> QuantizedMap | Tensor:
    """Computes a fully connected layer of integers.

    Args:
        x: (N, I).
        weight: from :func:`pack_linear_weight`.
        bias: (O,) float32.
        output: the scale of a quantized result, or float32 or bfloat16.
        activation: oneDNN's name and constants.

    Returns:
        (N, O).
    """
    return _compute(onednn_int8().qlinear_pointwise, x, weight, (bias,), output, activation, None)


def _compute(
    operator: Any,
    x: QuantizedMap,
    weight: QuantizedWeight,
    others: Sequence[Any],
    output: Scale | torch.dtype,
    activation: Activation,
    residual: QuantizedMap | Tensor | None,
) -> QuantizedMap | Tensor:
    """Calls one of oneDNN's operators, which have the same arguments but `others`: the bias, and the sizes of a convolution."""
    scale, dtype = (output, torch.uint8) if isinstance(output, Scale) else (Scale(1.0, 0), output)
    inputs = x.values, *x.scale, *weight[:3]
    name, constants = activation
    if residual is None:
        result = operator(*inputs, *others, *scale, dtype, name, constants, "")
    else:
        values, added = residual if isinstance(residual, QuantizedMap) else (residual, Scale(1.0, 0))
        # Convolutions take None for no activation, and products of matrices a name.
        unary = None if name == "none" and len(others) > 1 else name
        result = operator.binary(*inputs, values, *others, *scale, dtype, *added, "sum", 1.0, unary, constants, "")
    return QuantizedMap(result, output) if isinstance(output, Scale) else result
