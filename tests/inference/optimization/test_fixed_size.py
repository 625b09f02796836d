"""Detection with outputs of fixed shape: the same results, and nothing that waits for the GPU."""

import copy
import pickle

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import GeneralizedRCNN
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskrcnn_ext import get_config, optimize
from maskrcnn_ext.inference.optimization.cuda_graphs import GraphedRCNN, parts_of
from maskrcnn_ext.inference.optimization.fixed_size import FixedSizeDetection, unsupported_reason
from maskrcnn_ext.inference.optimization.heads import make_fast_rpn, make_optimized_pooler
from maskrcnn_ext.inference.optimization.optimize import optimize_in_place
from maskrcnn_ext.ops.workspace import Workspace
from tests.helpers.random_models import FPN, INPUTS, MODELS, build

FIXED = {
    "FPN": (FPN, {}),
    "boxes": ("faster_rcnn_r18_fpn_scratch.py", {}),
    "cascade": ("cascade_mask_rcnn_r18_fpn_scratch.py", {}),
    "one box for all classes": (FPN, {"box_predictor": {"cls_agnostic_bbox_reg": True}}),
    "one mask for all classes": (FPN, {"mask_head": {"num_classes": 1}}),
    "fewer detections than the limit": (FPN, {"box_predictor": {"test_score_thresh": 0.5}}),
    "none": (FPN, {"box_predictor": {"test_score_thresh": 1.0}}),
}


@pytest.mark.parametrize("name", FIXED)
def test_fixed_size_results_are_the_same(name):
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


def test_a_model_with_graphs_is_copied_with_its_own_parts():
    graphed = GraphedRCNN(**parts_of(optimize(build(FPN), dtype="fp32"))).eval()
    with torch.inference_mode():
        expected = graphed.inference(INPUTS[:1])[0]["instances"]
        for other in (copy.deepcopy(graphed), pickle.loads(pickle.dumps(graphed))):
            assert other.detect.function.backbone is other.backbone
            assert other.backbone is not graphed.backbone
            found = other.inference(INPUTS[:1])[0]["instances"]
            assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_values_that_are_not_finite_are_left_out():
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
    """A subclass, which `optimize` does not make a CompactRCNN."""


class OnTheGPU(TorchDispatchMode):
    """Fails if an operator returns a tensor on the host, for which a CUDA graph would have to wait."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        assert all(one.is_cuda for one in tree_leaves(made) if isinstance(one, torch.Tensor)), function
        return made


@pytest.fixture
def gpu_without_values(monkeypatch):
    """Tensors with device, shape and dtype but no values: reading a value fails, and so does mixing devices or dtypes."""

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
def test_nothing_waits_for_the_gpu(gpu_without_values, config, dtype):
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
def test_unsupported_parts_are_named(name, reason):
    model = build(MODELS[name][0], detects=False, **MODELS[name][1])
    assert unsupported_reason(optimize_in_place(model, dtype="fp32")) == reason
