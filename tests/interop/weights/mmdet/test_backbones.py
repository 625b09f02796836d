"""Backbones of MMDetection after the import: equal features, names by shapes, and messages for those that are unknown."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.mmdet.backbones import find_family, order_merged_patches
from maskrcnn_ext.interop.weights.mmdet.convert import convert
from tests.helpers.mmdet_backbones import ConvNeXt, Swin
from tests.helpers.mmdet_imports import NAMES, saved
from tests.helpers.mmdet_reference import MMDetMaskRCNN

SWIN_CONFIG = """
model = dict(
    type='MaskRCNN', backbone=dict(type='SwinTransformer', embed_dims=96, window_size=7, drop_path_rate=0.2, patch_norm=True),
    neck=dict(in_channels=[96, 192, 384, 768]))
"""


@pytest.mark.parametrize(
    ("net", "config", "name"),
    [
        (Swin, SWIN_CONFIG, "swin_tiny_patch4_window7_224"),
        (ConvNeXt, None, "convnext_tiny"),
        (partial(ConvNeXt, 2), None, "convnextv2_tiny"),
    ],
)
@torch.no_grad()
def test_features_are_the_same(net, config, name, tmp_path):
    torch.manual_seed(0)
    with torch.device("meta"):
        model = MMDetMaskRCNN(len(NAMES), "pytorch", backbone="convnext")
    source = net()
    for norm in source.modules():
        if isinstance(norm, nn.LayerNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    state = {
        key: torch.zeros(()).expand(value.shape) for key, value in model.state_dict().items() if "backbone" not in key
    }
    state |= {f"backbone.{key}": value for key, value in source.state_dict().items()}
    converted = convert(saved(tmp_path, state, **({"meta": {"cfg": config}} if config else {})))
    bottom_up = converted.config.model.backbone.bottom_up
    assert bottom_up.name == name
    assert bottom_up.drop_path_rate == (0.2 if config else 0.0)
    own, prefix = instantiate(bottom_up).eval(), "backbone.bottom_up."
    own.load_state_dict({k.removeprefix(prefix): v for k, v in converted.state.items() if k.startswith(prefix)})
    x = torch.randn(1, 3, 64, 96)
    for feature, expected in zip(own(x).values(), source(x), strict=True):
        torch.testing.assert_close(feature, expected, atol=1e-4, rtol=1e-4)


def test_merged_patches_are_read_in_the_order_of_the_authors():
    # A map of two channels whose value is its place: channel, row, column.
    place = torch.tensor([[[0, 1], [10, 11]], [[100, 101], [110, 111]]])
    of_mmdet = torch.nn.functional.unfold(place[None].float(), 2)[0, :, 0]
    assert order_merged_patches(of_mmdet).tolist() == [0, 100, 10, 110, 1, 101, 11, 111]
    assert order_merged_patches(of_mmdet.expand(3, 8)).shape == (3, 8)


def states(**shapes):
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    "keys",
    [
        {"backbone.blocks.0.attn.qkv.weight": (3, 1), "backbone.pos_embed": (1, 197, 768)},  # a plain ViT
        {"backbone.layers.0.0.projection.weight": (1, 1, 1, 1)},  # a PVT
        {"backbone.layer1.0.conv1.weight": (64, 64, 1, 1)},  # a ResNet with a deep stem
    ],
)
def test_unknown_backbones(keys):
    with pytest.raises(InputError, match=r"x\.pth: the backbone is unknown: expected a ResNet"):
        find_family("x.pth", states(**keys))


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("backbone.patch_embed.projection.weight", (64, 3, 4, 4), "64 channels and 12 blocks is not among timm's"),
        ("backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table", (225, 3), "is not among timm's"),
        ("backbone.norm2.weight", None, r"backbone\.bottom_up\.out_norms\.res4\.weight"),
        ("backbone.absolute_pos_embed", (1, 3136, 96), "absolute_pos_embed is not used"),
    ],
)
def test_other_swins_are_refused(key, shape, message, tmp_path):
    with torch.device("meta"):
        model = MMDetMaskRCNN(len(NAMES), "pytorch", backbone="swin")
    state = {name: torch.zeros(()).expand(value.shape) for name, value in model.state_dict().items()}
    if shape is None:
        del state[key]
    else:
        state[key] = torch.zeros(()).expand(shape)
    with pytest.raises(InputError, match=message) as caught:
        convert(saved(tmp_path, state))
    assert "\n" not in str(caught.value)


def test_style_is_for_resnets(tmp_path):
    with torch.device("meta"):
        model = MMDetMaskRCNN(len(NAMES), "pytorch", backbone="regnet")
    state = {name: torch.zeros(()).expand(value.shape) for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="style=caffe is for ResNets"):
        convert(saved(tmp_path, state), style="caffe")
