"""Networks of timm as graphs of fused convolutions, for blocks of any kind.

``torch.fx`` records the operators of a network once. If all of them are known, norms are folded into the convolutions before them, and
activations and residual sums become epilogues of the convolutions.
"""

from __future__ import annotations

import logging
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import first_line, short_list
from maskrcnn_ext.compat import has_forward_hooks, is_batch_norm
from maskrcnn_ext.inference.optimization.backbone import WrappedBackbone
from maskrcnn_ext.inference.optimization.convolution import (
    ACTIVATIONS,
    FusedConv2d,
    as_detectron2,
    is_fusible_conv,
)
from maskrcnn_ext.modeling.backbones.norms import FrozenBatchNormAct
from maskrcnn_ext.modeling.backbones.rotary_positions import RotaryPositions
from maskrcnn_ext.modeling.backbones.swin_windows import DetectionBlock
from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone
from maskrcnn_ext.ops.quantized import QuantizedMap

logger = logging.getLogger(__name__)

# Operations that a graph may have.
_NOTHING = (nn.Identity, nn.Dropout)
_LAYERS = (nn.Conv2d, nn.Linear, nn.LayerNorm, nn.MaxPool2d, nn.AvgPool2d)
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, FrozenBatchNormAct)
_SUMS = (operator.add, operator.iadd)
_FUNCTIONS = (*_SUMS, operator.mul, operator.imul, torch.cat, F.pad, F.relu, F.gelu, F.layer_norm)
_TRANSFORMERS = ("SwinTransformer", "VisionTransformer", "Eva")
_METHODS = ("add", "mul", "mean", "sigmoid", "permute", "reshape")

MakeConv = Callable[[nn.Module], FusedConv2d]


class TracedTimmBackbone(WrappedBackbone):
    """A ``TimmBackbone`` whose network is a graph of known operators."""

    def __init__(self, backbone: TimmBackbone, net: fx.GraphModule) -> None:
        """Replaces the network of the backbone, in place, by its graph."""
        super().__init__(backbone)
        backbone.net = net

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Maps images (N, C, H, W) to maps by name, as the backbone does."""
        backbone: Any = self.wrapped
        x = backbone.prepare(image)
        features: dict[str, Tensor] = backbone.name_maps(backbone.net(x), x)
        return features

    def fuse(self, make_conv: MakeConv) -> TracedTimmBackbone:
        """Fuses the layers of the network, in place; `make_conv` returns the fused form of a convolution."""
        side, pixels = 2 * self.size_divisibility, self.wrapped.input
        image = torch.zeros(1, len(pixels.mean), side, side, device=pixels.scale.device)
        fuse_graph(self.wrapped.net, make_conv, image)
        return self


class _Maps(nn.Module):
    """The network of a ``TimmBackbone`` as a function of its input."""

    def __init__(self, backbone: TimmBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.backbone.compute_maps(x)


class _Tracer(fx.Tracer):
    """Records convolutions and norms as single operators, subclasses included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_layer = isinstance(m, nn.Conv2d | FrozenBatchNorm2d) or is_batch_norm(m)
        return is_layer or super().is_leaf_module(m, module_qualified_name)


class SameConv2d(nn.Module):
    """A convolution with TensorFlow's "SAME" padding (timm's ``Conv2dSame``).

    On maps of even size and with stride 2, SAME pads the bottom and the right by one row and column more than the top and the left. A
    kernel with a row and a column of zeros in front computes the same with equal padding on all sides, so that no padded copy of the map
    is made. Depthwise convolutions have this form; for others, the copy costs less than the larger kernel.
    """

    def __init__(self, conv: nn.Conv2d, make_conv: MakeConv) -> None:
        """Builds the fused form of a convolution without padding, whose weights it changes."""
        super().__init__()
        side = conv.kernel_size[0]
        self.sizes = conv.kernel_size, conv.stride, conv.dilation
        self.is_depthwise = conv.groups == conv.in_channels and side % 2 == 1
        self.is_depthwise = self.is_depthwise and self.sizes == ((side, side), (2, 2), (1, 1))
        if self.is_depthwise:
            conv.weight.data = F.pad(conv.weight.data, (1, 0, 1, 0))
            conv.kernel_size, conv.padding = (side + 1, side + 1), (side // 2, side // 2)
        self.conv = make_conv(conv)

    def forward(self, x: Any) -> Tensor:
        """Maps (N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)); depthwise, also a QuantizedMap."""
        if not self.is_depthwise:
            x = _timm_layers().pad_same(x, *self.sizes)
        elif any(size % 2 for size in x.shape[2:]):
            sides = x.shape[3] % 2, 0, x.shape[2] % 2, 0
            x = x.pad(sides) if isinstance(x, QuantizedMap) else F.pad(x, sides)
        return self.conv(x)


class ResidualConv2d(nn.Module):
    """A fused convolution whose output is added to another map of its size."""

    def __init__(self, conv: FusedConv2d, *, relu: bool) -> None:
        """Wraps a convolution without activation; `relu` is whether one follows the sum."""
        super().__init__()
        self.conv, self.relu = conv, relu

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Maps (N, C, H, W) and the residual (N, out_channels, H', W') to the shape of the residual."""
        return self.conv.add(x, residual, relu=self.relu)


def trace_timm(backbone: nn.Module) -> TracedTimmBackbone | None:
    """Returns the traced form of a ``TimmBackbone``. None for other modules, and for networks that have an unknown operator."""
    if type(backbone) is not TimmBackbone:
        return None
    for module in backbone.modules():
        if getattr(module, "grad_checkpointing", False):
            module.grad_checkpointing = False  # it would only hide the operators
    reason = ""
    try:
        maps = _Maps(backbone)
        net = fx.GraphModule(maps, _Tracer().trace(maps))
        if unknown := sorted(set(_unknown_operators(net))):
            reason = f"it computes with {short_list(unknown)}"
    except Exception as error:  # code that depends on the image fails in many ways
        reason = first_line(error)
    if reason:
        logger.warning("optimize: the layers of %s stay as they are: %s", backbone.name, reason)
        return None
    return TracedTimmBackbone(backbone, net)


def is_known_transformer(backbone: nn.Module) -> bool:
    """Whether a module is a ``TimmBackbone`` on a Swin Transformer or plain ViT of timm's layers only, which run under autocast."""
    return (
        type(backbone) is TimmBackbone
        and type(backbone.net).__name__ in _TRANSFORMERS
        and all(_is_of_libraries(module) and not has_forward_hooks(module) for module in backbone.net.modules())
    )


def _is_of_libraries(module: nn.Module) -> bool:
    return type(module) in (DetectionBlock, RotaryPositions) or type(module).__module__.partition(".")[0] in (
        "timm",
        "torch",
    )


def _unknown_operators(net: fx.GraphModule) -> Iterator[str]:
    """Yields the names of the operators of a graph that may depend on more than their inputs."""
    modules = (*_NOTHING, *_LAYERS, *ACTIVATIONS, *_norm_types(), _timm_layers().Conv2dSame)
    tensors = {name for name, _ in (*net.named_parameters(), *net.named_buffers())}
    for node in net.graph.nodes:
        if node.op == "call_module":
            module = net.get_submodule(node.target)
            name, inner = type(module).__name__, getattr(module, "drop", None)
            known = type(module) in modules and (inner is None or type(inner) in _NOTHING)
        elif node.op == "call_function":
            known, name = node.target in _FUNCTIONS, getattr(node.target, "__name__", str(node.target))
        elif node.op == "call_method":
            known, name = node.target in _METHODS, node.target
        else:
            known, name = node.op != "get_attr" or node.target in tensors, str(node.target)
        if not known:
            yield name


def fuse_graph(net: fx.GraphModule, make_conv: MakeConv, image: Tensor) -> None:
    """Fuses convolutions with the operations that follow them, in place.

    Args:
        net: a graph of known operators.
        make_conv: returns the fused form of a convolution.
        image: (1, C, H, W), which passes through the network to find the shapes of the maps.
    """
    with torch.inference_mode():
        ShapeProp(net).propagate(image)
    for node in list(net.graph.nodes):
        if _is_call(net, node, _NOTHING):
            _replace(node, node.args[0])
    calls = Counter(node.target for node in net.graph.nodes if node.op == "call_module")
    for node in list(net.graph.nodes):
        if calls[node.target] == 1 and _is_call(net, node, (nn.Conv2d, _timm_layers().Conv2dSame)):
            _fuse_conv(net, node, make_conv)
    for node in list(net.graph.nodes):
        if node.target in _SUMS:
            _fuse_sum(net, node)
    net.delete_all_unused_submodules()
    net.recompile()


def _fuse_conv(net: fx.GraphModule, node: fx.Node, make_conv: MakeConv) -> None:
    """Replaces a convolution, a norm and an activation that follow one another by one module."""
    conv = net.get_submodule(node.target)
    chain, norm, activation = [node], None, None
    if (follower := _only_user(node)) and _is_call(net, follower, _norm_types()):
        norm = net.get_submodule(follower.target)
        activation = getattr(norm, "act", None)
        activation = None if type(activation) in _NOTHING else activation
        chain.append(follower)
    if activation is None and (follower := _only_user(chain[-1])) and _is_call(net, follower, tuple(ACTIVATIONS)):
        activation = net.get_submodule(follower.target)
        chain.append(follower)
    layer = as_detectron2(conv, norm, activation)
    if not is_fusible_conv(layer):
        return
    net.set_submodule(node.target, make_conv(layer) if type(conv) is nn.Conv2d else SameConv2d(layer, make_conv))
    for follower in chain[1:]:
        _replace(follower, node)


def _fuse_sum(net: fx.GraphModule, node: fx.Node) -> None:
    """Replaces the sum of a convolution and a map of the same shape, and a ReLU that follows, by one module."""
    for conv, residual in (node.args, node.args[::-1]):
        is_module = isinstance(conv, fx.Node) and conv.op == "call_module"
        layer = net.get_submodule(conv.target) if is_module else None
        if not isinstance(layer, FusedConv2d) or _only_user(conv) != node or _shape(conv) != _shape(residual):
            continue
        if layer.relu or layer.activation is not None or _changes_memory(net, conv, node):
            continue
        with net.graph.inserting_before(node):
            fused = net.graph.create_node("call_module", conv.target, (*conv.args, residual))
        fused.meta = node.meta
        _replace(node, fused)
        net.graph.erase_node(conv)
        relu = _only_user(fused)
        has_relu = relu is not None and _is_call(net, relu, (nn.ReLU,))
        net.set_submodule(conv.target, ResidualConv2d(layer, relu=has_relu))
        if has_relu:
            _replace(relu, fused)
        return


def _changes_memory(net: fx.GraphModule, first: fx.Node, last: fx.Node) -> bool:
    """Whether an operator between two others works in place, so that the first cannot be computed later."""
    node = first.next
    while node is not last:
        inplace = node.op == "call_module" and getattr(net.get_submodule(node.target), "inplace", False)
        if inplace or node.target in (operator.iadd, operator.imul):
            return True
        node = node.next
    return False


def _is_call(net: fx.GraphModule, node: Any, types: tuple[type[nn.Module], ...]) -> TypeGuard[fx.Node]:
    """Whether a node calls a module of exactly one of the types."""
    return isinstance(node, fx.Node) and node.op == "call_module" and type(net.get_submodule(node.target)) in types


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _shape(node: Any) -> torch.Size | None:
    """Returns the shape of a node's tensor; None for numbers."""
    return node.meta["tensor_meta"].shape if isinstance(node, fx.Node) else None


def _replace(node: Any, replacement: Any) -> None:
    node.replace_all_uses_with(replacement)
    node.graph.erase_node(node)


def _norm_types() -> tuple[type[nn.Module], ...]:
    return (*_NORMS, _timm_layers().BatchNormAct2d, _timm_layers().SyncBatchNormAct)


def _timm_layers() -> Any:
    return require("timm.layers", extra="timm", purpose="this backbone")
