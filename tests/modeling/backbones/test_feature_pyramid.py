"""Maps of four strides from one."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn
from torch.nn import functional as F

from maskrcnn_ext import SimpleFeaturePyramid
from maskrcnn_ext.modeling.backbones.feature_pyramid import ChannelLayerNorm, ScaledMaps


def test_layer_norm_over_channels():
    norm = ChannelLayerNorm(6)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    norm.double()
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-6).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    torch.testing.assert_close(norm(x), expected)


def test_scaled_maps_against_their_definition():
    maps, x = ScaledMaps(8), torch.randn(1, 8, 4, 6)
    found = maps(x)
    assert maps.channels == {stride: found[stride].shape[1] for stride in (4, 8, 16, 32)}
    assert [tuple(found[stride].shape[2:]) for stride in (4, 8, 16, 32)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert found[16] is x
    assert torch.equal(found[32], x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)))
    first, norm, _, second = maps.scales["4"]
    expected = F.conv_transpose2d(
        F.gelu(norm(F.conv_transpose2d(x, first.weight, first.bias, 2))), second.weight, second.bias, 2
    )
    torch.testing.assert_close(found[4], expected)


class Maps(Backbone):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return {f"res{i}": F.avg_pool2d(self.conv(x), 2**i) for i in (2, 3, 4)}

    def output_shape(self):
        return {f"res{i}": ShapeSpec(channels=4, stride=2**i) for i in (2, 3, 4)}


@pytest.mark.parametrize("norm", ["", "LN", "GN"])
def test_each_level_depends_on_its_own_map_only(norm):
    pyramid = SimpleFeaturePyramid(
        Maps(), ["res2", "res3", "res4"], 32, norm, LastLevelMaxPool() if norm == "x" else None
    )
    x = torch.randn(1, 3, 32, 48)
    found = pyramid(x)
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == {
        "p2": (32, 8, 12),
        "p3": (32, 4, 6),
        "p4": (32, 2, 3),
    }
    maps = pyramid.bottom_up(x)
    torch.testing.assert_close(found["p3"], pyramid.fpn_output3(pyramid.fpn_lateral3(maps["res3"])))
    assert (pyramid.fpn_lateral3.bias is None) == bool(norm)
    assert pyramid.size_divisibility == 16


def test_the_last_level():
    class Pool(LastLevelMaxPool):
        def __init__(self):
            super().__init__()
            self.in_feature = "p4"

    pyramid = SimpleFeaturePyramid(Maps(), ["res2", "res3", "res4"], 8, top_block=Pool())
    found = pyramid(torch.randn(1, 3, 64, 64))
    assert list(found) == list(pyramid.output_shape()) == ["p2", "p3", "p4", "p5"]
    assert torch.equal(found["p5"], found["p4"][:, :, ::2, ::2])
