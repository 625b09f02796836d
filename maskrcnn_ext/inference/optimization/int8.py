"""Layers in 8-bit integers: convolutions, transposed convolutions and fully connected layers by oneDNN's int8 kernels.

Rounding the weights shifts the mean of each output; the biases are corrected for it.

A layer takes numbers or a :class:`QuantizedMap`. It returns numbers unless ``quantizes_output`` is set, which is done where all that
follows takes a QuantizedMap: within residual blocks and from block to block, and in chains of layers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, fx, nn
from torch.nn import functional as F

from maskrcnn_ext.compat import has_forward_hooks
from maskrcnn_ext.inference.optimization.backbone import FusedBlock, FusedFPN
from maskrcnn_ext.inference.optimization.calibration import Calibration
from maskrcnn_ext.inference.optimization.convolution import (
    ACTIVATIONS,
    FusedConv2d,
    FusedUpsampling,
    fold_norm,
    is_fusible_upsampling,
)
from maskrcnn_ext.inference.optimization.heads import SelectedClassMaskHead
from maskrcnn_ext.inference.optimization.known import only_calls_layers
from maskrcnn_ext.inference.optimization.layers import FLOAT32_LAYERS, FusedLayers
from maskrcnn_ext.inference.optimization.timm_nets import ResidualConv2d, SameConv2d, TracedTimmBackbone
from maskrcnn_ext.ops.predictors import select_logits
from maskrcnn_ext.ops.quantized import (
    NO_ACTIVATION,
    ConvSizes,
    QuantizedMap,
    QuantizedWeight,
    Scale,
    pack_conv_weight,
    pack_linear_weight,
    quantize,
    quantized_conv2d,
    quantized_linear,
    rounding_shift,
)
from maskrcnn_ext.ops.workspace import Workspace

# The first convolution takes fewer channels. It is a small part of the time, and all that follows depends on it.
_MIN_CHANNELS = 16
RELU = ACTIVATIONS[nn.ReLU]
_INT8_ACTIVATIONS = {kind: call for kind, call in ACTIVATIONS.items() if kind not in (nn.Sigmoid, nn.Hardsigmoid)}
# Values of the products of a transposed convolution that are computed at once.
_PIECE = 1 << 22


class Int8Conv2d(FusedConv2d):
    """A FusedConv2d in 8-bit integers; bias, residual sum and activation are computed before the result is rounded.

    Attributes:
        quantizes_output: whether the result is a :class:`QuantizedMap`; else its dtype is that of the layer.
    """

    packed: QuantizedWeight

    def __init__(
        self,
        conv: nn.Conv2d,
        scales: tuple[Scale, Scale],
        *,
        dtype: torch.dtype,
        workspace: Workspace,
        relu: bool = False,
    ) -> None:
        """Builds the int8 form of a convolution.

        Args:
            conv: a convolution for which :func:`is_int8_conv` is true.
            scales: of its input, and of its output after sum and activation.
            dtype: of results that are not quantized.
            workspace: see :class:`FusedConv2d`.
            relu: see :class:`FusedConv2d`.
        """
        super().__init__(conv, dtype=dtype, workspace=workspace, relu=relu)
        self.input_scale, self.output_scale = scales
        self.quantizes_output = False

    def forward(self, x: Any) -> Any:
        """Maps (N, C, H, W), quantized or not, to (N, out_channels, H', W'), quantized or not."""
        return self._compute_int8(x, None, relu=self.relu)

    def add(self, x: Any, residual: Any, *, relu: bool, overwrite: bool = False) -> Any:
        """Returns conv(x) + residual; see :meth:`FusedConv2d.add`."""
        return self._compute_int8(x, residual, relu=relu, overwrite=overwrite)

    def add_upsampled(self, x: Any, residual: Any) -> Any:
        """Returns conv(x) + residual, which is upsampled; see :meth:`FusedConv2d.add_upsampled`. It is never quantized."""
        residual = F.interpolate(residual.to(self.dtype), scale_factor=2.0, mode="nearest")
        return self._compute_int8(x, residual, relu=False, overwrite=True)

    def quantize(self, x: Any) -> QuantizedMap:
        """Returns the input in integers."""
        return x if isinstance(x, QuantizedMap) else quantize(x, self.input_scale)

    def as_matrix(self) -> None:
        """Returns None: the weights are not numbers."""

    def _take_weights(self, exact: Tensor, bias: Tensor) -> None:
        self.sizes = ConvSizes(self.stride, self.padding, self.dilation, self.groups)
        self.packed, self.bias = pack_conv_weight(exact, self.sizes), bias.float()

    def _compute_int8(self, x: Any, residual: Any, *, relu: bool, overwrite: bool = False) -> Any:
        output = self.output_scale if self.quantizes_output else self.dtype
        activation = RELU if relu else _INT8_ACTIVATIONS.get(type(self.activation), NO_ACTIVATION)
        if residual is not None:
            residual = self._prepare_residual(residual, overwrite=overwrite)
        return quantized_conv2d(
            self.quantize(x), self.packed, self.bias, self.sizes, output, activation=activation, residual=residual
        )

    def _prepare_residual(self, residual: Any, *, overwrite: bool) -> Any:
        """Returns the residual in the form of the result, and in memory that may be overwritten."""
        is_quantized = isinstance(residual, QuantizedMap)
        if not self.quantizes_output:
            new = residual.dequantize(self.dtype) if is_quantized else residual.to(self.dtype)
            new = new.contiguous(memory_format=torch.channels_last)
            return new.clone() if new is residual and not overwrite else new
        if not is_quantized:
            return quantize(residual, self.output_scale)
        return residual if overwrite else QuantizedMap(residual.values.clone(), residual.scale)


class Int8Linear(nn.Module):
    """A fully connected layer in 8-bit integers.

    Attributes:
        relu: whether a ReLU is applied to the output.
        quantizes_output: see :class:`Int8Conv2d`.
    """

    def __init__(self, layer: nn.Linear, scales: tuple[Scale, Scale], *, dtype: torch.dtype) -> None:
        """Builds the int8 form of a layer; see :class:`Int8Conv2d`."""
        super().__init__()
        self.packed = pack_linear_weight(layer.weight.detach())
        self.bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().float()
        self.input_scale, self.output_scale = scales
        self.dtype, self.relu, self.quantizes_output = dtype, False, False

    def forward(self, x: Any) -> Any:
        """Maps (N, in_features), quantized or not, to (N, out_features), quantized or not."""
        x = x if isinstance(x, QuantizedMap) else quantize(x, self.input_scale)
        output = self.output_scale if self.quantizes_output else self.dtype
        activation = RELU if self.relu else NO_ACTIVATION
        return quantized_linear(x, self.packed, self.bias, output, activation=activation)


class Int8Upsampling(FusedUpsampling):
    """A FusedUpsampling in 8-bit integers. Its results are numbers."""

    def __init__(self, deconv: nn.ConvTranspose2d, scale: Scale, *, dtype: torch.dtype, workspace: Workspace) -> None:
        """Builds the int8 form of a layer; `scale` is that of its input."""
        super().__init__(deconv, dtype=dtype, workspace=workspace)
        self.sizes = ConvSizes([1, 1], [0, 0], [1, 1], 1)
        kernels = deconv.weight.detach().permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]  # (4 * O, I, 1, 1)
        self.packed, self.input_scale = pack_conv_weight(kernels, self.sizes), scale
        self.bias4 = self.bias.repeat(4)
        del self.weight

    def forward(self, x: Any, then: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Maps (N, I, H, W), quantized or not; see :meth:`FusedUpsampling.forward`."""
        values, scale = x if isinstance(x, QuantizedMap) else quantize(x, self.input_scale)
        number, _, height, width = values.shape
        channels = len(self.bias)
        if then is None:
            pixels = self._products(QuantizedMap(values, scale)).permute(0, 2, 3, 1)
            pixels = pixels.reshape(number, height, width, 2, 2, channels).transpose(2, 3)
            return pixels.reshape(number, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        logits = self.workspace.empty(number, 2 * height, 2 * width)
        weights, last = then
        step = max(1, _PIECE // (4 * channels * height * width))
        for first in range(0, number, step):
            own = slice(first, first + step)
            products = self._products(QuantizedMap(values[own], scale)).permute(0, 2, 3, 1).flatten(0, 2)
            select_logits(products, torch.zeros(channels), weights[own], last[own], logits[own], relu=False)
        return logits[:, None]

    def _products(self, x: QuantizedMap) -> Tensor:
        """Returns (N, 4 * O, H, W), with bias and ReLU."""
        activation = RELU if self.relu else NO_ACTIVATION
        products = quantized_conv2d(x, self.packed, self.bias4, self.sizes, self.dtype, activation=activation)
        assert isinstance(products, Tensor)
        return products


class Int8Layers(FusedLayers):
    """Makes int8 layers of those whose scales are known, else the layers of :class:`FusedLayers`."""

    def __init__(
        self,
        dtype: torch.dtype,
        workspace: Workspace,
        names: dict[int, str],
        calibration: Calibration,
        unseen: list[str],
    ) -> None:
        """Sets the layers' settings.

        Args:
            dtype: of maps that are not quantized and of layers that stay as they are, float32 or bfloat16.
            workspace: memory that they share.
            names: what :func:`weight_names` returned before any layer was replaced.
            calibration: of the layers' maps.
            unseen: receives the names of weights whose layers stay as they are, because the calibration saw no input of theirs.
        """
        super().__init__(dtype, workspace)
        self.names, self.calibration, self.unseen = names, calibration, unseen

    def conv(self, conv: nn.Module, name: str = "", *, relu: bool = False) -> FusedConv2d:
        """See :meth:`FusedLayers.conv`."""
        scales = self._scales_of(conv, name) if is_int8_conv(conv) else None
        if scales is None:
            return super().conv(conv, name, relu=relu)
        fused = Int8Conv2d(conv, scales, dtype=self.dtype, workspace=self.workspace, relu=relu)
        exact, _ = fold_norm(conv) or (conv.weight, None)
        fused.bias += rounding_shift(exact, self._means_of(conv), conv.groups)
        return fused

    def layer(self, layer: nn.Module, name: str) -> nn.Module | None:
        """See :meth:`FusedLayers.layer`."""
        takes_integers = type(layer) is nn.Linear or is_fusible_upsampling(layer)
        scales = self._scales_of(layer, name) if takes_integers else None
        if scales is None:
            return super().layer(layer, name)
        if isinstance(layer, nn.Linear):
            linear = Int8Linear(layer, scales, dtype=self.dtype)
            linear.bias = linear.bias + rounding_shift(layer.weight.detach(), self._means_of(layer))
            return linear
        return Int8Upsampling(layer, scales[0], dtype=self.dtype, workspace=self.workspace)

    def _means_of(self, layer: nn.Module) -> Tensor:
        """Returns the mean of each channel of the input of a layer whose scales are known."""
        return torch.tensor(self.calibration.means[self.names[id(layer.weight)]])

    def _scales_of(self, layer: nn.Module, name: str) -> tuple[Scale, Scale] | None:
        """Returns the scales of a layer's input and output; None if the layer stays as it is."""
        label = self.names.get(id(layer.weight))
        if label is None or name in FLOAT32_LAYERS:
            return None
        given = self.calibration.scales.get((label, "input"))
        if given is None:
            self.unseen.append(label)
            return None
        # A transposed convolution and a convolution whose sum is never quantized need no scale of the output.
        return given, self.calibration.scales.get((label, "output"), given)


def is_int8_conv(conv: nn.Module) -> bool:
    """Whether a fusible convolution is not the first, and oneDNN's int8 kernels have its activation."""
    activation = getattr(conv, "activation", None)
    known = activation is None or not isinstance(activation, nn.Module) or type(activation) in _INT8_ACTIVATIONS
    return known and conv.in_channels >= _MIN_CHANNELS


def keep_quantized(model: nn.Module) -> None:
    """Makes layers return 8-bit integers where all following layers take them."""
    parts = list(model.modules())
    for part in parts:
        if isinstance(part, SelectedClassMaskHead):
            _keep_in_chain([*part.layers, *([part.upsampling] if part.upsampling is not None else [])])
        elif isinstance(part, nn.Sequential) and only_calls_layers(part):
            _keep_in_chain(list(part))
        elif isinstance(part, FusedFPN):
            _keep_between_stages(part.wrapped)
        elif isinstance(part, TracedTimmBackbone):
            _keep_in_graph(part.wrapped.net)
    for block in parts:  # after the loop above, which sets whether the sums of blocks are quantized
        if isinstance(block, FusedBlock):
            _keep_in_chain([*block.inner, block.last])
            if isinstance(block.shortcut, Int8Conv2d) and isinstance(block.last, Int8Conv2d):
                block.shortcut.quantizes_output = block.last.quantizes_output


def _keep_in_chain(layers: list[nn.Module]) -> None:
    layers = [layer for layer in layers if type(layer) is not nn.Identity]
    for layer, following in pairwise(layers):
        producer = layer.last if isinstance(layer, FusedBlock) else layer
        # The scale of a fully connected layer's output is that after a ReLU.
        is_known = isinstance(producer, Int8Conv2d) or (isinstance(producer, Int8Linear) and producer.relu)
        if is_known and _takes_integers(following):
            producer.quantizes_output = True


def _keep_between_stages(fpn: Any) -> None:
    """Quantizes the maps that the stages of a ResNet pass to the next stage and to a pyramid."""
    resnet = fpn.bottom_up
    if type(resnet) is not ResNet or type(fpn.top_block) not in (LastLevelMaxPool, type(None)):
        return
    if any(map(has_forward_hooks, (resnet, *resnet.stages))):  # which take tensors
        return
    if not all(isinstance(conv, Int8Conv2d) for conv in fpn.lateral_convs):
        return
    for stage, following in zip(resnet.stages, [*resnet.stages[1:], None], strict=True):
        if isinstance(stage[-1], FusedBlock) and isinstance(stage[-1].last, Int8Conv2d):
            stage[-1].last.quantizes_output = following is None or _takes_integers(following[0])


def _keep_in_graph(net: fx.GraphModule) -> None:
    """Quantizes the maps of a network of timm that only go to int8 convolutions."""

    def int8_conv(node: fx.Node) -> Int8Conv2d | None:
        layer = net.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, ResidualConv2d) or (isinstance(layer, SameConv2d) and layer.is_depthwise):
            layer = layer.conv
        return layer if isinstance(layer, Int8Conv2d) else None

    for node in net.graph.nodes:
        conv = int8_conv(node)
        if conv is not None and all(map(int8_conv, node.users)):
            conv.quantizes_output = True


def _takes_integers(layer: nn.Module) -> bool:
    if isinstance(layer, FusedBlock):
        return all(isinstance(conv, Int8Conv2d) for conv in (*layer.inner, layer.last, layer.shortcut or layer.last))
    return isinstance(layer, Int8Conv2d | Int8Linear | Int8Upsampling)
