"""The matrix: every mask head with every pooler, optimized in float32 and bf16, has the boxes, scores and masks of the plain model."""

import copy

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import FPN, GeneralizedRCNN
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from omegaconf import OmegaConf
from torch import nn

from maskrcnn_ext import get_config
from maskrcnn_ext.inference.optimization.optimize import optimize
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS
from tests.helpers.pairs import pairs
from tests.modeling.test_matrix import head_overrides, pooler_overrides

CONFIG = "mask_rcnn_r50_fpn_1x"
CHANNELS = 32
IMAGE = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


pytestmark = pytest.mark.usefixtures("one_thread")


def make_backbone(*, stem=None, norm="FrozenBN", fpn_norm="", bottom_up=None):
    stages = [
        [BasicBlock(a, b, stride=stride, norm=norm), BasicBlock(b, b, norm=norm)]
        for a, b, stride in ((32, 32, 1), (32, 64, 2), (64, 96, 2), (96, 128, 2))
    ]
    names = ["res2", "res3", "res4", "res5"]
    top_block = instantiate(get_config(CONFIG).model.backbone.top_block)
    bottom_up = bottom_up or ResNet(stem or BasicStem(3, 32, norm=norm), stages, out_features=names)
    return FPN(bottom_up, names, CHANNELS, norm=fpn_norm, top_block=top_block)


def make_model(*overrides, channels=3, **backbone):
    """A small model that suppresses no proposal and no detection, so that rounding does not change which ones there are."""
    torch.manual_seed(0)
    model = copy.deepcopy(get_config(CONFIG).model)
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.update(in_features=["p6"], nms_thresh=1.0)
    rpn.head.update(in_channels=CHANNELS, num_anchors=2)
    rpn.anchor_generator.update(sizes=[[20, 60]], aspect_ratios=[1.0], strides=[64])
    heads.num_classes = 3
    heads.box_head.update(conv_dims=[], fc_dims=[32])
    heads.box_predictor.update(test_score_thresh=0.0, test_nms_thresh=1.0)
    heads.box_predictor.input_shape.channels = 32
    heads.mask_head.conv_dims = [CHANNELS] * 2
    for shape in (heads.box_head.input_shape, heads.mask_head.input_shape):
        shape.channels = CHANNELS
    for pooler in (heads.box_pooler, heads.mask_pooler):
        pooler.canonical_box_size = 48  # boxes of all levels
    model = LazyConfig.apply_overrides(
        OmegaConf.create({"model": model}, flags={"allow_objects": True}), list(overrides)
    ).model
    model = GeneralizedRCNN(
        backbone=make_backbone(**backbone),
        proposal_generator=instantiate(model.proposal_generator),
        roi_heads=instantiate(model.roi_heads),
        pixel_mean=[128.0] * channels,
        pixel_std=[64.0] * channels,
    )
    return strengthen(model)


@torch.no_grad()
def strengthen(model):
    """Makes the last layers answer as those of a trained model do: their initial weights are almost 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            size = layer.weight[0].numel() ** -0.5
            if layer.weight.std() < 0.3 * size:
                layer.weight.normal_(0, size)
    for name in ("bbox_pred", "anchor_deltas"):
        for layer in (module for path, module in model.named_modules() if path.endswith(name)):
            layer.weight *= 0.1
    return model.eval()


def check(model, *dtypes, limits=None):
    """Compares the detections of a model with those of its optimized forms, by default within LIMITS. Returns these forms."""
    channels = len(model.pixel_mean)
    inputs = [{"image": torch.cat([IMAGE, IMAGE.flip(1)])[:channels]}]
    forms = [optimize(model, dtype=dtype) for dtype in dtypes]
    with torch.inference_mode():
        expected = model.inference(inputs)[0]["instances"]
        assert len(expected) >= 6
        for dtype, form in zip(dtypes, forms, strict=True):
            box, score, iou = (limits or LIMITS)[dtype]
            found = form.inference(inputs)[0]["instances"]
            assert len(found) == len(expected)
            distance = (found.pred_boxes.tensor[:, None] - expected.pred_boxes.tensor).abs().amax(2)
            distance += 1e4 * (found.pred_classes[:, None] != expected.pred_classes)
            found = found[distance.argmin(0)]
            assert distance.amin(0).max() <= box
            for field in {"scores", "pred_mask_scores"} & set(expected.get_fields()):
                assert (found.get(field) - expected.get(field)).abs().max() <= score
            masks, plain = found.pred_masks.to_dense(), expected.pred_masks
            assert plain.any()
            assert (masks & plain).sum() >= iou * (masks | plain).sum()
    return forms


# Distance of boxes in pixels, difference of scores, IoU of all masks together.
LIMITS = {"fp32": (0.02, 1e-3, 0.995), "bf16": (3.0, 0.15, 0.6)}


STOCK = "MaskRCNNConvUpsampleHead"
HEADS = [STOCK, *(part.name for part in MASK_HEADS)]


@pytest.mark.parametrize(("head", "pooler"), pairs(HEADS, [part.name for part in POOLERS], every=6, always=[STOCK]))
def test_every_head_with_every_pooler(head, pooler):
    swap = [] if head == STOCK else head_overrides(head, CONFIG)
    nodes = ["box_pooler"] if "model.roi_heads.mask_pooler=null" in swap else ["box_pooler", "mask_pooler"]
    model = make_model(*(line for node in nodes for line in pooler_overrides(pooler, node)), *swap)
    check(model, "fp32", "bf16")
