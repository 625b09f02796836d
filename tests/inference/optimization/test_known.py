"""Modules that `optimize` does not know stay as they are, and known ones run in bf16."""

import logging

import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead, StandardROIHeads
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from torch import nn

from maskrcnn_ext import optimize
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, GroupNormConv2d
from maskrcnn_ext.modeling.fast_group_norm import use_fast_group_norm
from maskrcnn_ext.modeling.inflate import InflatedStem
from maskrcnn_ext.modeling.winograd_conv import use_winograd
from maskrcnn_ext.ops import group_norm, winograd
from maskrcnn_ext.ops.native import loads
from tests.inference.optimization.test_matrix import check, make_model

pytestmark = pytest.mark.usefixtures("one_thread")


class ScaledConv2d(Conv2d):
    """A convolution that computes with its weights in its own way, as timm's do."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight * 0.5, self.bias, self.stride, self.padding)


class SharedLayers(MaskRCNNConvUpsampleHead):
    """A head that reads the weights of its layers."""

    def layers(self, x):
        x = nn.functional.conv2d(x, self.mask_fcn1.weight, self.mask_fcn1.bias, padding=1)
        return super().layers(x)


class PartialROIHeads(StandardROIHeads):
    """RoI heads with another use of their mask head."""

    def _forward_mask(self, features, instances):
        features = self.mask_pooler([features[f] for f in self.mask_in_features], [one.pred_boxes for one in instances])
        mask_rcnn_inference(self.mask_head.layers(features), instances)
        return instances


class TeamStem(BasicStem):
    """A stem with one more use of its convolution's weight."""

    def forward(self, x):
        return super().forward(x) + self.conv1.weight.mean()


def with_own_convolutions(model):
    for block in model.backbone.bottom_up.res3:
        block.conv2.__class__ = ScaledConv2d
    return model


def with_hook(model):
    model.roi_heads.box_head.fc1.register_forward_hook(lambda *arguments: arguments[-1] * 0.5)
    model.backbone.bottom_up.res2[0].register_forward_hook(lambda *arguments: arguments[-1] * 0.5)
    model.roi_heads.mask_head.mask_fcn1.register_forward_pre_hook(lambda _, x: (x[0] * 0.5,))
    return model


HEAD, HEADS = "model.roi_heads.mask_head._target_", "model.roi_heads._target_"
# Models with a part that is unknown; what stays in float32 in bf16.
UNKNOWN = {
    "group norm": (lambda: make_model(norm="GN"), ["backbone stays in float32: Conv2d with GroupNorm"]),
    "stem for more channels": (lambda: make_model(channels=4, stem=InflatedStem(4, 32)), ["InflatedStem"]),
    "own stem": (lambda: make_model(stem=TeamStem(3, 32)), ["backbone stays in float32: TeamStem"]),
    "own convolutions": (lambda: with_own_convolutions(make_model()), ["backbone stays in float32: ScaledConv2d"]),
    "own mask head": (
        lambda: make_model(f"{HEAD}={__name__}.SharedLayers"),
        ["the RPN stays in float32: SharedLayers"],
    ),
    "own RoI heads": (lambda: make_model(f"{HEADS}={__name__}.PartialROIHeads"), ["PartialROIHeads"]),
    "hooks": (lambda: with_hook(make_model()), ["backbone stays in float32: BasicBlock", "Linear may not"]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_layers_stay_as_they_are(name, caplog):
    make, messages = UNKNOWN[name]
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        check(make(), "fp32", "bf16")
    for message in messages:
        assert message in caplog.text


def test_known_parts_run_in_bf16(caplog):
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        (form,) = check(make_model(), "bf16")
    assert "float32" not in caplog.text
    dtypes = {module.dtype for module in form.modules() if isinstance(module, FusedConv2d)}
    assert dtypes == {torch.bfloat16}


@pytest.mark.skipif(not (loads(winograd.library) and loads(group_norm.library)), reason="no compiled library")
def test_a_model_that_trained_on_a_cpu_is_optimized_as_before():
    models = [make_model(fpn_norm="GN") for _ in range(2)]
    assert use_winograd(models[1])
    assert use_fast_group_norm(models[1])
    before, after = ([type(part) for part in optimize(model, dtype="fp32").modules()] for model in models)
    assert before == after


def test_group_norms_of_pyramid_and_heads_are_fused(caplog):
    norms = [f"model.roi_heads.{name}.conv_norm=GN" for name in ("box_head", "mask_head")]
    model = make_model(*norms, "model.roi_heads.box_head.conv_dims=[32]", fpn_norm="GN")
    expected = sum(isinstance(module, nn.GroupNorm) for module in model.modules())
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        forms = check(model, "fp32", "bf16")
    assert "float32" not in caplog.text
    for form in forms:
        assert sum(isinstance(module, GroupNormConv2d) for module in form.modules()) == expected == 10
