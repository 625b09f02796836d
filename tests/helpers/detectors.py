"""Mask R-CNN of the shipped config with narrow layers, for what looks at the names and shapes of weights."""

import copy
import functools

import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet

from maskrcnn_ext import get_config

WIDTH = 8
NARROW = [
    f"model.backbone.bottom_up.stem.out_channels={WIDTH}",
    "model.backbone.out_channels=16",
    "model.roi_heads.mask_head.conv_dims=[16,16]",
]
ONE_BOX_HEAD = ["model.roi_heads.box_head.fc_dims=[16]", "model.roi_heads.box_predictor.input_shape.channels=16"]


def narrow_stages(norm):
    """res2 to res5, of two blocks each, under ResNet-18's names."""
    return [
        ResNet.make_stage(
            BasicBlock,
            2,
            in_channels=WIDTH if stage == 0 else WIDTH << (stage - 1),
            out_channels=WIDTH << stage,
            stride_per_block=[1 if stage == 0 else 2, 1],
            norm=norm,
        )
        for stage in range(4)
    ]


@functools.cache
def _config(name):
    cfg = get_config(name)
    cfg.model.backbone.bottom_up.stages = L(narrow_stages)(norm="BN")
    return cfg


def detector(*overrides, classes=5, seed=0, config="domains/shapes.py"):
    torch.manual_seed(seed)
    own = ONE_BOX_HEAD if config == "domains/shapes.py" else []
    overrides = [*NARROW, *own, f"model.roi_heads.num_classes={classes}", *overrides]
    return instantiate(LazyConfig.apply_overrides(copy.deepcopy(_config(config)), overrides).model)
