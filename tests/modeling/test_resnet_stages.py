"""Bottleneck stages against Detectron2's own, and the two things that Detectron2's cannot build: groups and dilation."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import ResNet
from detectron2.modeling.backbone import BasicStem

from maskrcnn_ext.modeling.resnet_stages import make_bottleneck_stages


def shapes(stages):
    return [{name: tensor.shape for block in stage for name, tensor in block.state_dict().items()} for stage in stages]


def convolutions(stages):
    """Returns stride, padding, dilation and groups of every convolution."""
    layers = [
        layer for stage in stages for block in stage for layer in block.modules() if hasattr(layer, "kernel_size")
    ]
    return [(layer.stride, layer.padding, layer.dilation, layer.groups) for layer in layers]


@pytest.mark.parametrize("stride_in_1x1", [True, False])
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_without_groups_and_dilation_they_are_detectron2s(depth, stride_in_1x1):
    with torch.device("meta"):
        stages = make_bottleneck_stages(depth=depth, norm="BN", stride_in_1x1=stride_in_1x1)
        expected = ResNet.make_default_stages(depth=depth, norm="BN", stride_in_1x1=stride_in_1x1)
    assert [len(stage) for stage in stages] == [len(stage) for stage in expected]
    assert shapes(stages) == shapes(expected)
    assert convolutions(stages) == convolutions(expected)


def test_resnext_has_groups_and_detectron2s_width():
    with torch.device("meta"):
        res2, *_, res5 = make_bottleneck_stages(depth=50, num_groups=32, width_per_group=4)
    assert res2[0].conv2.weight.shape == (128, 4, 3, 3)
    assert res5[0].conv2.weight.shape == (1024, 32, 3, 3)
    assert {block.conv2.groups for block in (*res2, *res5)} == {32}


@pytest.mark.parametrize(("res5_dilation", "stride"), [(1, 32), (2, 16)])
def test_dilation_keeps_res5_at_stride_16(res5_dilation, stride):
    with torch.device("meta"):
        stages = make_bottleneck_stages(depth=50, res5_dilation=res5_dilation)
        backbone = ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res5"])
        assert backbone(torch.zeros(1, 3, 64, 96))["res5"].shape == (1, 2048, 64 // stride, 96 // stride)
    assert backbone.output_shape()["res5"].stride == stride
    assert {block.conv2.dilation for block in stages[3]} == {(res5_dilation, res5_dilation)}


def test_an_unknown_depth_is_refused():
    with pytest.raises(KeyError, match="18"):
        make_bottleneck_stages(depth=18)
