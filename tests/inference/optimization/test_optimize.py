"""`maskrcnn_ext.optimize`: models of every kind predict the same."""

import copy
import logging
import pickle

import pytest
import torch
from detectron2.modeling import GeneralizedRCNN

from maskrcnn_ext import InputError, Predictor, optimize
from maskrcnn_ext.benchmark import models
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.ops.quantized import is_supported
from tests.helpers.random_models import INPUTS, MODELS, build
from tests.helpers.small_model import make_run

needs_int8 = pytest.mark.skipif(not is_supported(), reason="this CPU or torch has no int8 kernels")


def matches(found, expected, *, box, score, iou):
    """Checks detections that both have, those with equal scores in any order, and that nearly all are."""
    assert abs(len(found) - len(expected)) <= 1
    assert len(expected) >= 5
    distance = (found.pred_boxes.tensor[:, None] - expected.pred_boxes.tensor).abs().amax(2)
    distance += 1e4 * (found.pred_classes[:, None] != expected.pred_classes)
    order = distance.argmin(0)
    near = distance.amin(0) <= box
    assert near.float().mean() >= 0.95
    assert (found.scores[order] - expected.scores).abs()[near].max() <= score
    if expected.has("pred_masks"):
        one, other = found.pred_masks.to_dense()[order][near], expected.pred_masks[near]
        union, shared = (one | other).flatten(1).sum(1), (one & other).flatten(1).sum(1)
        # Of a small mask, a pixel whose probability is nearly the threshold is more than that.
        assert ((shared >= iou * union) | (union - shared <= 1)).all()
    if expected.has("pred_keypoints"):
        moved = (found.pred_keypoints[order] - expected.pred_keypoints)[near].abs()
        assert (moved[..., :2].amax(2) <= 1).float().mean() >= 0.98


@pytest.mark.parametrize("name", MODELS)
def test_every_model_predicts_the_same(name):
    model = build(MODELS[name][0], **MODELS[name][1])
    quick = optimize(model, dtype="fp32")
    with torch.inference_mode():
        for one, other in zip(quick.inference(INPUTS), model.inference(INPUTS), strict=True):
            matches(one["instances"], other["instances"], box=0.02, score=1e-3, iou=0.98)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["mask_rcnn_r50_fpn_1x.py", "mask_rcnn_r50_c4_1x.py", "mask_rcnn_r50_dc5_1x.py"])
def test_baselines_have_the_same_features(config):
    model = build(config)
    quick = optimize(model, dtype="fp32")
    with torch.inference_mode():
        images = model.preprocess_image(INPUTS)
        features, expected = quick.backbone(images.tensor), model.backbone(images.tensor)
        for name, value in features.items():
            assert (value - expected[name]).abs().max() <= 1e-3 * expected[name].abs().max()
        found = quick.inference(INPUTS)
    assert all(len(one["instances"]) >= 5 for one in found)


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_predicts_the_same(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = build(MODELS[name][0], **MODELS[name][1])
    quick = optimize(model, "cuda", dtype="fp32", sizes=[(96, 160)])
    with torch.inference_mode():
        expected = model.inference(INPUTS)
        for _ in range(3):  # recorded, then replayed
            for one, other in zip(quick.inference(INPUTS), expected, strict=True):
                matches(one["instances"].to("cpu"), other["instances"], box=0.02, score=1e-3, iou=0.98)


def test_bf16_is_near():
    model = build("mask_rcnn_r18_fpn_scratch.py")
    quick = optimize(model, dtype="bf16")
    features = model.backbone(model.preprocess_image(INPUTS[:1]).tensor)
    with torch.inference_mode():
        for name, value in quick.backbone(quick.preprocess_image(INPUTS[:1]).tensor).items():
            assert value.dtype == torch.bfloat16
            assert (value.float() - features[name]).abs().mean() <= 0.12 * features[name].abs().mean()
        found = quick.inference(INPUTS)[0]["instances"]
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32


def test_bf16_leaves_other_heads_in_float32(caplog):
    changes = {"mask_head": {"_target_": "maskrcnn_ext.PointRendMaskHead"}}
    model = build("mask_rcnn_r18_fpn_scratch.py", **changes)
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        quick = optimize(model, dtype="bf16")
    assert "the part after the RPN stays in float32: PointRendMaskHead may not work in bf16" in caplog.text
    with torch.inference_mode():
        assert len(quick.inference(INPUTS)) == 2


def test_the_model_is_not_changed():
    model = build("mask_rcnn_r18_fpn_scratch.py")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quick = optimize(model)
    assert any(isinstance(module, FusedConv2d) for module in quick.modules())
    assert isinstance(quick.roi_heads.box_pooler, FastROIPooler)
    assert not any(isinstance(module, FusedConv2d) for module in model.modules())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", pytest.param("int8", marks=needs_int8)])
def test_an_optimized_model_is_copied_and_not_trained_or_saved(dtype):
    model = build("mask_rcnn_r18_fpn_scratch.py")
    quick = optimize(model, dtype=dtype, calibrate=INPUTS if dtype == "int8" else None)
    with torch.inference_mode():
        expected = quick.inference(INPUTS)[0]["instances"]
        for other in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
            assert torch.equal(other.inference(INPUTS)[0]["instances"].pred_boxes.tensor, expected.pred_boxes.tensor)
    with pytest.raises(InputError, match="optimized already"):
        optimize(quick, dtype="fp32")
    for use in (quick.state_dict, lambda: quick.load_state_dict(model.state_dict(), strict=False)):
        with pytest.raises(InputError, match="an optimized model cannot be saved, loaded or exported"):
            use()
    with pytest.raises(InputError, match="an optimized model cannot be trained"):
        quick.train()(INPUTS)
    assert len(quick.eval()(INPUTS)) == 2


def test_bf16_without_instructions_is_reported(monkeypatch, caplog):
    monkeypatch.setattr("maskrcnn_ext.compat.cpu_instructions", lambda: ["AVX2"])
    optimize(build("mask_rcnn_r18_fpn_scratch.py", detects=False), dtype="bf16")
    assert "this CPU has no instructions for bf16, so that fp32 is faster" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_in_other_precisions(dtype):
    model = build("mask_rcnn_r18_fpn_scratch.py").to(dtype)
    quick, expected = (optimize(one, dtype="fp32") for one in (model, copy.deepcopy(model).float()))
    assert next(model.parameters()).dtype == dtype
    with torch.inference_mode():
        one, other = (side.inference(INPUTS[:1])[0]["instances"] for side in (quick, expected))
    assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)


def test_no_detections_and_sizes_run_ahead():
    model = build("mask_rcnn_r18_fpn_scratch.py")
    model.roi_heads.box_predictor.test_score_thresh = 1.0
    quick = optimize(model, sizes=[(64, 96), (96, 64)])
    with torch.inference_mode():
        assert [len(one["instances"]) for one in quick.inference(INPUTS)] == [0, 0]


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="Linear is not a GeneralizedRCNN"):
        optimize(torch.nn.Linear(1, 1))
    model = GeneralizedRCNN.__new__(GeneralizedRCNN)
    with pytest.raises(InputError, match="dtype=int4: expected auto, fp32, bf16 or int8"):
        optimize(model, dtype="int4")


def test_a_predictor_can_be_optimized(tmp_path, shapes):
    run = make_run(tmp_path / "run", f"coco:{shapes}@{shapes.parent / 'images'}")
    image = next((shapes.parent / "images").iterdir())
    found, expected = Predictor(run, device="cpu", optimize=True)(image), Predictor(run, device="cpu")(image)
    assert len(found) == len(expected)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=0)


# Tolerances of the comparison: another order of the same sums rounds in another way.
ROUNDED = ("channels_last", "optimized")


@pytest.mark.slow
@pytest.mark.realdata
def test_photographs_have_the_same_detections(real_data, tmp_path, capsys):
    weights = str(models.detectron2_weights(tmp_path / "model.pth", models.R50, [], (800, 1216)))
    stock = Predictor(models.R50, weights, device="cpu")
    sides = {name: Predictor(models.R50, weights, device="cpu", optimize=name == "optimized") for name in ROUNDED}
    sides["channels_last"].model.to(memory_format=torch.channels_last)
    count, far, masks = 0, dict.fromkeys(sides, 0), dict.fromkeys(sides, 0)
    for file in sorted((real_data / "coco_open" / "val2017").iterdir())[:12]:
        expected = stock(str(file))
        count += len(expected)
        for name, side in sides.items():
            found = side(str(file))
            distance = (found.pred_boxes.tensor[:, None] - expected.pred_boxes.tensor).abs().amax(2)
            distance += 1e4 * (found.pred_classes[:, None] != expected.pred_classes)
            order, near = distance.argmin(0), distance.amin(0) <= 1
            one, other = found.pred_masks.to_dense()[order][near], expected.pred_masks.to_dense()[near]
            union, shared = (one | other).flatten(1).sum(1), (one & other).flatten(1).sum(1)
            far[name] += int((~near).sum())
            masks[name] += int(((shared < 0.98 * union) & (union - shared > 2)).sum())
    with capsys.disabled():
        print(f"\nof {count} detections, farther than 1 px: {far}; masks below an IoU of 0.98: {masks}")
    assert count > 1000
    assert far["optimized"] <= 0.02 * count
    assert masks["optimized"] <= 0.02 * count
