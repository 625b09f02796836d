"""Graphs of timm's networks: the fused parts, the others, and equal outputs."""

import copy
import logging
import operator
import pickle

import pytest
import torch
from torch import fx, nn

from maskrcnn_ext import TimmBackbone
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d
from maskrcnn_ext.inference.optimization.timm_nets import (
    ResidualConv2d,
    SameConv2d,
    fuse_graph,
    is_known_transformer,
    trace_timm,
)
from maskrcnn_ext.ops.workspace import Workspace
from tests.helpers.timm_models import measure_statistics

layers = pytest.importorskip("timm.layers")
pytestmark = pytest.mark.usefixtures("one_thread")
# Network -> norm, and the modules and functions of its graph that may remain beside fused convolutions.
SE = {"mean", "mul", "sigmoid"}
NETS = {
    "resnet18": ("BN", {"MaxPool2d"}),
    "regnety_002": ("FrozenBN", SE),
    "tf_efficientnet_lite0": ("FrozenBN", set()),
    "efficientnet_b0": ("BN", SE),
    "mobilenetv3_small_050": ("FrozenBN", SE),
    "mobilenetv4_conv_small": ("BN", set()),
    "hgnetv2_b0": ("SyncBN", {"MaxPool2d", "pad", "cat", "mul", "add"}),
    "convnext_atto": (None, {"permute", "layer_norm", "gelu", "reshape", "mul", "add"}),
}


def make_conv(conv):
    return FusedConv2d(conv, dtype=torch.float32, workspace=Workspace())


def backbone(name, norm=None, **options):
    torch.manual_seed(0)
    pixels = {"pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3}
    return TimmBackbone(name, pretrained=False, norm=norm, **pixels, **options).eval().requires_grad_(False)


def parts(net):
    """Returns the names of the operators of a graph."""
    return {
        type(net.get_submodule(node.target)).__name__
        if node.op == "call_module"
        else getattr(node.target, "__name__", node.target)
        for node in net.graph.nodes
        if node.op.startswith("call")
    }


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_norms_and_activations_are_fused(name):
    norm, rest = NETS[name]
    plain = backbone(name, norm)
    x = torch.randn(2, 3, 70, 96)
    measure_statistics(nn.ModuleDict({"backbone": plain}), x)
    for parameter in (value for key, value in plain.named_parameters() if key.endswith(("gamma", "layer_scale"))):
        parameter.fill_(1.0)
    exact = copy.deepcopy(plain).double()(x.double())
    expected = plain(x)
    fused = trace_timm(plain).fuse(make_conv)
    assert parts(fused.wrapped.net) <= rest | {"FusedConv2d", "ResidualConv2d", "SameConv2d"}
    assert fused.output_shape() == plain.output_shape()
    for key, found in pickle.loads(pickle.dumps(fused))(x).items():
        error, rounding = (found - exact[key]).abs().max(), (expected[key] - exact[key]).abs().max()
        assert error <= 4 * rounding + 1e-5 * exact[key].abs().max()


@pytest.mark.parametrize("options", [{"kernel_size": 3}, {"kernel_size": 5}, {"kernel_size": 3, "groups": 1}], ids=str)
@pytest.mark.parametrize("size", [(12, 16), (13, 16), (9, 7)])
@torch.no_grad()
def test_same_padding(options, size):
    torch.manual_seed(0)
    conv = layers.Conv2dSame(8, 8, **{"stride": 2, "groups": 8, **options})
    x = torch.randn(2, 8, *size)
    expected = conv(x)
    conv.__class__ = nn.Conv2d
    torch.testing.assert_close(SameConv2d(conv, make_conv)(x), expected)


def fuse(module, channels=8):
    net = fx.symbolic_trace(module.eval())
    fuse_graph(net, make_conv, torch.zeros(1, channels, 8, 8))
    return net


class Block(nn.Module):
    """A convolution, and the operations of a test on its output and the input."""

    def __init__(self, use):
        super().__init__()
        self.conv, self.relu, self.gate = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1)
        self.use = use

    def forward(self, x):
        return self.use(self, x)


SUMS = {
    "sum": (lambda block, x: x + block.conv(x), {"ResidualConv2d"}),
    "sum and ReLU": (lambda block, x: block.relu(operator.iadd(block.conv(x), x)), {"ResidualConv2d"}),
    "sum of another shape": (
        lambda block, x: x + block.gate(x.mean((2, 3), keepdim=True)),
        {"mean", "FusedConv2d", "add"},
    ),
    "two uses": (lambda block, x: torch.cat([found := block.conv(x), found + x]), {"FusedConv2d", "add", "cat"}),
    "ReLU before the sum": (lambda block, x: x + block.relu(block.conv(x)), {"FusedConv2d", "add"}),
    "input changes in place": (
        lambda block, x: (x := x.mul(2.0), found := block.conv(x), block.relu(x) + found)[-1],
        {"mul", "FusedConv2d", "ReLU", "add"},
    ),
    "two calls of a convolution": (lambda block, x: block.conv(block.conv(x)), {"Conv2d"}),
}


@pytest.mark.parametrize("name", SUMS)
@torch.no_grad()
def test_sums(name):
    use, expected_parts = SUMS[name]
    torch.manual_seed(0)
    block, x = Block(use), torch.randn(2, 8, 8, 8)
    expected = block(x.clone())
    net = fuse(block)
    assert parts(net) == expected_parts
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)
    assert all(module.relu == (name == "sum and ReLU") for module in net.modules() if type(module) is ResidualConv2d)


@pytest.mark.parametrize(
    ("name", "reason"), [("nf_resnet26", "computes with ScaledStdConv2d"), ("deit_tiny_patch16_224", "control flow")]
)
def test_unknown_networks_stay_as_they_are(name, reason, caplog):
    with torch.device("meta"), caplog.at_level(logging.INFO, "maskrcnn_ext"):
        assert trace_timm(backbone(name)) is None
    assert f"the layers of {name} stay as they are" in caplog.text
    assert reason in caplog.text


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv4_conv_small"])
def test_checkpointed_networks_are_traced(name):
    with torch.device("meta"):
        assert trace_timm(backbone(name, activation_checkpointing=True)) is not None


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3"])
def test_plain_vits_are_known(name):
    with torch.device("meta"):
        assert is_known_transformer(backbone(name))
