"""`maskrcnn_ext.optimize`: the same answers, of every kind of model."""

import logging

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import GeneralizedRCNN
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskrcnn_ext import InputError, Predictor, get_config, optimize
from maskrcnn_ext.benchmark import models
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d
from maskrcnn_ext.inference.optimization.cuda_graphs import GraphedRCNN, parts_of
from maskrcnn_ext.inference.optimization.fixed_size import FixedSizeDetection, unsupported_reason
from maskrcnn_ext.inference.optimization.heads import make_fast_rpn, make_optimized_pooler
from maskrcnn_ext.inference.optimization.optimize import optimize_in_place
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.ops.workspace import Workspace
from tests.helpers.small_model import make_run

NORMS = (torch.nn.BatchNorm2d, FrozenBatchNorm2d)
INPUTS = [
    {"image": torch.from_numpy(np.random.default_rng(side).integers(0, 255, (3, side, 160)).astype(np.float32))}
    for side in (96, 120)
]


@torch.no_grad()
def spread(model):
    """Gives a model of random weights activations of about 1, and last layers that differ between places."""
    generator = torch.Generator().manual_seed(0)
    last = {"objectness_logits": 1.0, "anchor_deltas": 0.2, "cls_score": 2.0, "bbox_pred": 0.5, "predictor": 1.0}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in last and hasattr(module, "weight"):
            scale = last[name.rpartition(".")[2]] / module.weight[0].numel() ** 0.5
            module.weight.normal_(0, 4 * scale, generator=generator)

    def take(norm, arguments):
        values = arguments[0]
        if values.numel():
            norm.running_mean.copy_(values.mean((0, 2, 3)))
            norm.running_var.copy_(values.var((0, 2, 3), unbiased=False) + 1e-3)

    hooks = [norm.register_forward_pre_hook(take) for norm in model.modules() if isinstance(norm, NORMS)]
    model.eval().inference(INPUTS[:1])
    for hook in hooks:
        hook.remove()
    return model


def build(config, **changes):
    torch.manual_seed(0)
    cfg = get_config(config).model
    heads = cfg.roi_heads
    for predictor in heads.box_predictors if "box_predictors" in heads else [heads.box_predictor]:
        predictor.update(test_score_thresh=0.02, test_topk_per_image=20)
    cfg.proposal_generator.update(pre_nms_topk=[200, 200], post_nms_topk=[60, 60])
    for key, value in changes.items():
        heads[key].update(value)
    if changes.get("mask_head", {}).get("_target_", "").endswith("PointRendMaskHead"):
        heads.mask_pooler = None
    return spread(instantiate(cfg))


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


MODELS = {
    "FPN": ("mask_rcnn_r18_fpn_scratch.py", {}),
    "cascade": ("cascade_mask_rcnn_r18_fpn_scratch.py", {}),
    "keypoints": ("keypoint_rcnn_r18_fpn_scratch.py", {}),
    "boxes": ("faster_rcnn_r18_fpn_scratch.py", {}),
    "boundary head": ("mask_rcnn_r18_fpn_scratch.py", {"mask_head": {"_target_": "maskrcnn_ext.BoundaryMaskHead"}}),
    "PointRend": ("mask_rcnn_r18_fpn_scratch.py", {"mask_head": {"_target_": "maskrcnn_ext.PointRendMaskHead"}}),
    "precise pooler": ("mask_rcnn_r18_fpn_scratch.py", {"box_pooler": {"_target_": "maskrcnn_ext.PreciseROIPooler"}}),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_the_same(name):
    model = build(MODELS[name][0], **MODELS[name][1])
    quick = optimize(model, dtype="fp32")
    with torch.inference_mode():
        for one, other in zip(quick.inference(INPUTS), model.inference(INPUTS), strict=True):
            matches(one["instances"], other["instances"], box=0.02, score=1e-3, iou=0.98)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["mask_rcnn_r50_fpn_1x.py", "mask_rcnn_r50_c4_1x.py", "mask_rcnn_r50_dc5_1x.py"])
def test_the_baselines_see_the_same(config):
    model = build(config)
    quick = optimize(model, dtype="fp32")
    with torch.inference_mode():
        images = model.preprocess_image(INPUTS)
        features, expected = quick.backbone(images.tensor), model.backbone(images.tensor)
        for name, value in features.items():
            assert (value - expected[name]).abs().max() <= 1e-3 * expected[name].abs().max()
        found = quick.inference(INPUTS)
    assert all(len(one["instances"]) >= 5 for one in found)


FPN = "mask_rcnn_r18_fpn_scratch.py"
FIXED = {
    "FPN": (FPN, {}),
    "boxes": ("faster_rcnn_r18_fpn_scratch.py", {}),
    "cascade": ("cascade_mask_rcnn_r18_fpn_scratch.py", {}),
    "one box for all classes": (FPN, {"box_predictor": {"cls_agnostic_bbox_reg": True}}),
    "one mask for all classes": (FPN, {"mask_head": {"num_classes": 1}}),
    "fewer detections than there is place for": (FPN, {"box_predictor": {"test_score_thresh": 0.5}}),
    "none": (FPN, {"box_predictor": {"test_score_thresh": 1.0}}),
}


@pytest.mark.parametrize("name", FIXED)
def test_results_of_a_fixed_size_are_the_same(name):
    quick = optimize(build(FIXED[name][0], **FIXED[name][1]), dtype="fp32")
    assert unsupported_reason(quick) is None
    graphed = GraphedRCNN(**parts_of(quick)).eval()
    with torch.inference_mode():
        for one, other in zip(graphed.inference(INPUTS), quick.inference(INPUTS), strict=True):
            one, other = one["instances"], other["instances"]
            assert (len(other) > 0) == (name != "none")
            for field in ("scores", "pred_classes"):
                assert torch.equal(one.get(field), other.get(field))
            assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)
            assert name == "boxes" or one.pred_masks.rles == other.pred_masks.rles


def test_what_is_not_finite_is_left_out_of_a_fixed_size():
    model = build("faster_rcnn_r18_fpn_scratch.py")
    model.proposal_generator = make_fast_rpn(model.proposal_generator)
    model.roi_heads.box_pooler = make_optimized_pooler(model.roi_heads.box_pooler, Workspace())
    inputs = [{"image": INPUTS[0]["image"] * float("nan")}, INPUTS[1]]
    with torch.inference_mode():
        found = GraphedRCNN(**parts_of(model)).eval().inference(inputs)
        expected = model.inference(inputs)
    assert len(found[0]["instances"]) == len(expected[0]["instances"]) == 0
    assert torch.equal(found[1]["instances"].scores, expected[1]["instances"].scores)


class OtherRCNN(GeneralizedRCNN):
    """What `optimize` does not make a CompactRCNN of."""


class OnTheGPU(TorchDispatchMode):
    """Refuses what makes a tensor on the host, for which a CUDA graph would have to wait."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        assert all(one.is_cuda for one in tree_leaves(made) if isinstance(one, torch.Tensor)), function
        return made


@pytest.fixture
def gpu_without_values(monkeypatch):
    """Tensors that know their device, shape and type: what asks for a value fails, and what mixes devices or types."""

    def to(module, change):
        for part in module.modules():
            for name, value in part._parameters.items():
                part._parameters[name] = value if value is None else torch.nn.Parameter(value.to(change), False)
        return module

    monkeypatch.setattr(torch.nn.Module, "to", to)  # which cannot change such tensors in place
    with FakeTensorMode(), torch.no_grad():
        yield


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("config", [FPN, "cascade_mask_rcnn_r18_fpn_scratch.py"])
def test_a_gpu_has_to_say_nothing(gpu_without_values, config, dtype):
    cfg = get_config(config).model
    cfg._target_ = OtherRCNN
    with torch.device("cuda"):
        model, images, sizes = instantiate(cfg), torch.empty(2, 3, 128, 160), torch.empty(2, 2)
    detect = FixedSizeDetection(optimize_in_place(model, "cuda", dtype=dtype))
    with OnTheGPU():
        boxes, scores, classes, masks = detect(images, sizes)
    assert (boxes.shape, scores.shape, classes.shape) == ((2, 100, 4), (2, 100), (2, 100))
    assert masks.shape == (2, 100, 28, 28)
    assert boxes.dtype == scores.dtype == masks.dtype == torch.float32
    assert classes.dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("PointRend", "the mask head is PointRendMaskHead"),
        ("keypoints", "the RoI heads are StandardROIHeads with keypoints"),
        ("boundary head", "the mask head is BoundaryMaskHead"),
        ("precise pooler", "the box pooler is PreciseROIPooler"),
    ],
)
def test_why_a_model_is_no_graph(name, reason):
    assert unsupported_reason(optimize(build(MODELS[name][0], **MODELS[name][1]), dtype="fp32")) == reason


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_gives_the_same(name, monkeypatch):
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


def test_bf16_leaves_heads_that_are_no_chains_alone(caplog):
    changes = {"mask_head": {"_target_": "maskrcnn_ext.PointRendMaskHead"}}
    model = build("mask_rcnn_r18_fpn_scratch.py", **changes)
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        quick = optimize(model, dtype="bf16")
    assert "the heads stay in float32: PointRendMaskHead may not work in bf16" in caplog.text
    with torch.inference_mode():
        assert len(quick.inference(INPUTS)) == 2


def test_the_model_is_left_as_it_is():
    model = build("mask_rcnn_r18_fpn_scratch.py")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quick = optimize(model)
    assert any(isinstance(module, FusedConv2d) for module in quick.modules())
    assert isinstance(quick.roi_heads.box_pooler, FastROIPooler)
    assert not any(isinstance(module, FusedConv2d) for module in model.modules())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_detections_and_sizes_to_be_ready_for():
    model = build("mask_rcnn_r18_fpn_scratch.py")
    model.roi_heads.box_predictor.test_score_thresh = 1.0
    quick = optimize(model, sizes=[(64, 96), (96, 64)])
    with torch.inference_mode():
        assert [len(one["instances"]) for one in quick.inference(INPUTS)] == [0, 0]


def test_mistakes_are_told():
    with pytest.raises(InputError, match="Linear is not a GeneralizedRCNN"):
        optimize(torch.nn.Linear(1, 1))
    model = GeneralizedRCNN.__new__(GeneralizedRCNN)
    with pytest.raises(InputError, match="dtype=int8: expected auto, fp32 or bf16"):
        optimize(model, dtype="int8")


def test_a_predictor_predicts_with_it(tmp_path, shapes):
    run = make_run(tmp_path / "run", f"coco:{shapes}@{shapes.parent / 'images'}")
    image = next((shapes.parent / "images").iterdir())
    found, expected = Predictor(run, device="cpu", optimize=True)(image), Predictor(run, device="cpu")(image)
    assert len(found) == len(expected)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-3, rtol=0)


# Another order of the same sums rounds in another way: what the optimized model is compared with.
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
