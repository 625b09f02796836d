"""ResNets with torchvision's names: renamed keys, and configs of the tensors' depth and width."""

from __future__ import annotations

import re

import pytest
import torch
from omegaconf import OmegaConf
from torchvision.models import resnet

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.resnet import resnet_rule, set_resnet


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("body.conv1.weight", "stem.conv1.weight"),
        ("body.bn1.bias", "stem.conv1.norm.bias"),
        ("body.layer1.0.conv2.weight", "res2.0.conv2.weight"),
        ("body.layer4.2.bn3.running_var", "res5.2.conv3.norm.running_var"),
        ("body.layer2.0.downsample.0.weight", "res3.0.shortcut.weight"),
        ("body.layer2.0.downsample.1.weight", "res3.0.shortcut.norm.weight"),
    ],
)
def test_keys_are_renamed(key, name):
    pattern, rename = resnet_rule("body")
    assert rename(re.fullmatch(pattern, key)) == f"backbone.bottom_up.{name}"


def configured(build):
    with torch.device("meta"):
        tensors = {f"body.{key}": tensor for key, tensor in build().state_dict().items()}
    bottom_up = OmegaConf.create({"stem": {}}, flags={"allow_objects": True})
    set_resnet(bottom_up, tensors, "body", source="a.pth", stride_in_1x1=False, norm="BN")
    assert bottom_up.stem.norm == bottom_up.stages.norm == "BN"
    return bottom_up.stages


def test_depth_and_width_are_those_of_the_tensors():
    for build, depth in ((resnet.resnet18, 18), (resnet.resnet34, 34), (resnet.resnet50, 50)):
        assert configured(build).depth == depth
    stages = configured(resnet.resnext50_32x4d)
    assert (stages.depth, stages.num_groups, stages.width_per_group) == (50, 32, 4)


def test_other_backbones_are_refused():
    with pytest.raises(InputError, match=r"a\.pth: the backbone has 0 blocks in layer3"):
        set_resnet(OmegaConf.create({}), {}, "body", source="a.pth", stride_in_1x1=False, norm="BN")
