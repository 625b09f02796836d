"""Fused blocks, stem and FPN: equal to Detectron2's; other modules and subclasses are left alone."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import nn

from maskrcnn_ext.inference.optimization.backbone import FusedFPN, fuse_block, is_fusible_fpn
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d
from maskrcnn_ext.inference.optimization.layers import FusedLayers
from maskrcnn_ext.inference.optimization.optimize import _fuse_layers
from maskrcnn_ext.ops.workspace import Workspace

BLOCKS = {
    "basic": lambda: BasicBlock(32, 32),
    "basic, shortcut": lambda: BasicBlock(32, 64, stride=2),
    "bottleneck": lambda: BottleneckBlock(64, 64, bottleneck_channels=32),
    "bottleneck, shortcut": lambda: BottleneckBlock(32, 64, bottleneck_channels=32, stride=2),
}


def make_conv(conv, *, relu=False):
    return FusedConv2d(conv, dtype=torch.float32, workspace=Workspace(), relu=relu)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("owns_input", [False, True])
@torch.no_grad()
def test_blocks(kind, owns_input):
    torch.manual_seed(0)
    block = BLOCKS[kind]().eval()
    fused = fuse_block(block, make_conv, owns_input=owns_input)
    x = torch.randn(2, block.in_channels, 14, 18).relu()
    expected, before = block(x), x.clone()
    torch.testing.assert_close(fused(x), expected, atol=1e-3, rtol=1e-3)
    if not owns_input:
        assert torch.equal(x, before)


@pytest.mark.parametrize("size", [(64, 96), (61, 99), (130, 34)])
@torch.no_grad()
def test_the_stem_in_bands_equals_the_whole_one(size):
    torch.manual_seed(0)
    stem = BasicStem(3, 32).eval()
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(fuse_block(stem, make_conv)(x), stem(x), atol=1e-4, rtol=1e-4)


def test_other_modules_are_left_alone():
    class OwnBlock(BasicBlock):
        pass

    assert fuse_block(OwnBlock(8, 8), make_conv) is None
    assert fuse_block(BasicBlock(32, 32, norm="GN"), make_conv) is None
    assert fuse_block(nn.ReLU(), make_conv) is None


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
@torch.no_grad()
def test_the_fpn_equals_detectron2s(fuse_type):
    torch.manual_seed(0)
    stages = [[BasicBlock(16, 16)], [BasicBlock(16, 32, stride=2)]]
    bottom_up = ResNet(BasicStem(3, 16), stages, out_features=["res2", "res3"])
    fpn = FPN(bottom_up, ["res2", "res3"], 32, norm="FrozenBN", fuse_type=fuse_type).eval()
    assert not is_fusible_fpn(fpn)
    image = torch.randn(1, 3, 64, 96)
    expected = fpn(image)
    _fuse_layers(fpn, FusedLayers(torch.float32, Workspace()))
    assert is_fusible_fpn(fpn)
    fused = FusedFPN(fpn)
    found = fused(image)
    assert list(found) == list(expected)
    for name, level in expected.items():
        torch.testing.assert_close(found[name], level, atol=1e-3, rtol=1e-3)
    assert fused.output_shape()["p2"] == ShapeSpec(channels=32, stride=4)
    assert fused.size_divisibility == fpn.size_divisibility
