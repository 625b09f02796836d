"""Detectors on networks of timm predict the same when they are optimized, tiled and augmented."""

import logging

import pytest
import torch

from maskrcnn_ext import TTARCNN, Predictor, SimpleFeaturePyramid, TiledPredictor, TimmBackbone, optimize
from tests.helpers.timm_models import NETS, detector
from tests.inference.optimization.test_matrix import CHANNELS, IMAGE, check, make_model

pytest.importorskip("timm")
pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("MobileNet", "ViT")
# Distance of boxes in pixels, difference of scores, IoU of all masks together.
LIMITS = {"fp32": (0.01, 1e-4, 0.98), "bf16": (1.0, 0.01, 0.98)}
# Random weights of these amplify the rounding of bf16, that of autocast as much.
ROUGH = {family: {"bf16": (1.0, 0.1, 0.5)} for family in ("EfficientNet", "MobileNet", "HGNet")}
FAMILIES = [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in NETS]


@pytest.mark.parametrize("family", FAMILIES)
def test_optimized_models_predict_the_same(family, caplog):
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        check(detector(family), "fp32", "bf16", limits={**LIMITS, **ROUGH.get(family, {})})
    assert "stays in float32" not in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_as_exact_as_autocast(family):
    model = detector(family)
    image = model.preprocess_image([{"image": IMAGE}]).tensor
    quick = optimize(model, dtype="bf16").backbone
    with torch.inference_mode():
        exact, found = model.backbone(image), quick(image)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.backbone(image)
    for name, expected in exact.items():
        assert (found[name] - expected).norm() <= 1.3 * (rough[name] - expected).norm() + 2e-3 * expected.norm()


def test_the_pyramid_of_plain_vits_runs_in_bf16():
    net = TimmBackbone("deit_tiny_patch16_224", pretrained=False, pixel_mean=[128.0] * 3, pixel_std=[64.0] * 3)
    model = make_model(bottom_up=net)
    fpn = model.backbone
    model.backbone = SimpleFeaturePyramid(net, fpn.in_features, CHANNELS, norm="LN", top_block=fpn.top_block).eval()
    form = check(model, "fp32", "bf16", limits={**LIMITS, "bf16": (1.0, 0.05, 0.9)})[1]
    assert {value.dtype for value in form.backbone(torch.zeros(1, 3, 64, 64)).values()} <= {
        torch.bfloat16,
        torch.float32,
    }
    assert net.net.blocks[0].mlp.fc1.weight.dtype == torch.float32
    assert form.backbone.wrapped.bottom_up.net.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


def test_a_hook_keeps_a_network_in_float32(caplog):
    model = detector("MobileNet")
    model.backbone.bottom_up.net.blocks[0].register_forward_hook(lambda *arguments: arguments[-1] * 0.5)
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        check(model, "fp32", "bf16", limits=LIMITS)
    assert "the backbone stays in float32: TimmBackbone may not work in bf16" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_of_an_image_are_predicted(family):
    name, norm = NETS[family]
    part = "model.backbone.bottom_up"
    overrides = [
        f"{part}._target_=maskrcnn_ext.TimmBackbone",
        f"{part}.name={name}",
        f"{part}.norm={norm or 'null'}",
        f"{part}.pretrained=false",
        f"{part}.pixel_std=[57.375,57.12,58.395]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "model.roi_heads.box_predictor.test_score_thresh=0.0",
        "model.roi_heads.box_predictor.test_topk_per_image=5",
        "model.roi_heads.num_classes=2",
    ]
    predictor = Predictor("mask_rcnn_r18_fpn_scratch", "", device="cpu", overrides=overrides, optimize=True)
    image = IMAGE.permute(1, 2, 0).byte().numpy()
    found = TiledPredictor(predictor, tile=64)(image)
    assert found.image_size == (64, 96)
    assert len(found) >= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_views_of_an_image_are_merged(family):
    model = detector(family)
    parts = {name: getattr(model, name) for name in ("backbone", "proposal_generator", "roi_heads")}
    views = TTARCNN(**parts, pixel_mean=[128.0] * 3, pixel_std=[64.0] * 3, tta_scales=[1.0], tta_flip=False).eval()
    with torch.inference_mode():
        (found,), (expected,) = views.inference([{"image": IMAGE}]), model.inference([{"image": IMAGE}])
    assert len(found["instances"]) == len(expected["instances"])
    torch.testing.assert_close(
        found["instances"].pred_boxes.tensor.sort(0)[0], expected["instances"].pred_boxes.tensor.sort(0)[0]
    )
