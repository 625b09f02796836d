"""FastRPN is Detectron2's RPN: proposals, samples, losses and gradients."""

import copy

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import RotatedAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, build_proposal_generator
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

import maskrcnn_ext
from maskrcnn_ext import FastRPN, InputError
from maskrcnn_ext.env import setup_environment
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled

SIZES = [(200, 256), (256, 180)]


def build(kind, **options):
    """An RPN with weights that make its scores and boxes differ."""
    torch.manual_seed(0)
    node = maskrcnn_ext.get_config("mask_rcnn_r18_fpn_scratch.py").model.proposal_generator
    node._target_ = kind
    node.head.in_channels = 8
    node.pre_nms_topk, node.post_nms_topk = [300, 200], [150, 100]
    for key, value in options.items():
        node[key] = value
    rpn = instantiate(node)
    for layer in (rpn.rpn_head.objectness_logits, rpn.rpn_head.anchor_deltas):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return rpn


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(1)
    features = {
        f"p{level}": torch.randn(2, 8, 256 // 2**level, 256 // 2**level, generator=generator) for level in range(2, 7)
    }
    return ImageList(torch.zeros(2, 3, 256, 256), SIZES), features


def truth(*boxes):
    found = []
    for size, of_image in zip(SIZES, boxes, strict=True):
        found.append(Instances(size, gt_boxes=Boxes(torch.tensor(of_image, dtype=torch.float32).reshape(-1, 4))))
    return found


TWO = truth([[10, 20, 90, 80], [12, 22, 92, 82], [100, 50, 230, 190]], [[0, 0, 30, 200]])
TRUTHS = {"two images": TWO, "one is empty": truth([[10, 20, 90, 80]], []), "both are empty": truth([], [])}


def step(rpn, inputs, instances):
    """Proposals, losses, gradients and scalars of a training step, with equal random numbers."""
    images, features = inputs
    features = {name: level.clone().requires_grad_() for name, level in features.items()}
    torch.manual_seed(5)
    with EventStorage() as storage:
        proposals, losses = rpn.train()(images, features, instances)
        sum(losses.values()).backward()
        scalars = {name: value for name, (value, _) in storage.latest().items()}
    after = torch.rand(1)
    gradients = [*(level.grad for level in features.values()), *(p.grad for p in rpn.parameters())]
    return proposals, losses, gradients, scalars, after


def assert_same_proposals(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.image_size == theirs.image_size
        assert len(ours) > 20
        assert torch.equal(ours.proposal_boxes.tensor, theirs.proposal_boxes.tensor)
        assert torch.equal(ours.objectness_logits, theirs.objectness_logits)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inference_returns_the_same_proposals(inputs, layout):
    images, features = inputs
    features = {name: level.contiguous(memory_format=layout) for name, level in features.items()}
    with torch.no_grad():
        expected, _ = build(RPN).eval()(images, features)
        found, losses = build(FastRPN).eval()(images, features)
    assert losses == {}
    assert_same_proposals(found, expected)


@pytest.mark.parametrize(
    ("instances", "options"),
    [
        ("two images", {}),
        ("one is empty", {"anchor_boundary_thresh": 0}),
        ("two images", {"box_reg_loss_type": "giou"}),
        ("one is empty", {"smooth_l1_beta": 0.1, "loss_weight": 2.0}),
        ("both are empty", {}),
    ],
)
def test_a_training_step_is_the_same(inputs, instances, options):
    instances = TRUTHS[instances]
    expected = step(build(RPN, **options), inputs, instances)
    found = step(build(FastRPN, **options), inputs, instances)
    assert_same_proposals(found[0], expected[0])
    assert found[1].keys() == expected[1].keys()
    for name, loss in expected[1].items():
        assert torch.equal(found[1][name], loss), name
    for ours, theirs in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    assert found[3] == expected[3]
    assert torch.equal(found[4], expected[4]), "as many random numbers"


def test_ties_return_as_many_proposals_with_the_same_scores(inputs):
    images, features = inputs
    rounded = []
    for kind in (RPN, FastRPN):
        rpn = build(kind).eval()
        rpn.rpn_head.objectness_logits.register_forward_hook(lambda _, __, out: out.round())
        rpn.nms_thresh = 1.0
        with torch.no_grad():
            rounded.append(rpn(images, features)[0])
    for theirs, ours in zip(*rounded, strict=True):
        assert torch.equal(ours.objectness_logits, theirs.objectness_logits)


def test_nan_scores_raise_in_training_and_are_dropped_in_inference(inputs):
    images, features = inputs
    broken = {name: level.clone() for name, level in features.items()}
    broken["p4"][1, :, 3, 4] = float("nan")
    rpn = build(FastRPN)
    with EventStorage(), pytest.raises(FloatingPointError, match="Training has diverged"):
        rpn(images, broken, TWO)
    with torch.no_grad():
        expected, _ = build(RPN).eval()(images, broken)
        assert_same_proposals(rpn.eval()(images, broken)[0], expected)


def test_mixed_precision(inputs):
    of_kinds = []
    for kind in (RPN, FastRPN):
        with torch.autocast("cpu", torch.bfloat16):
            of_kinds.append(step(build(kind), inputs, TWO)[1])
    assert of_kinds[0] == of_kinds[1]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_serves_other_images():
    """Of another size, and with another number of proposals."""
    rpn = build(FastRPN, nms_thresh=0.3).eval().requires_grad_(False)

    def boxes(image):
        images = ImageList.from_tensors([image], 64)
        levels = {f"p{level}": F.avg_pool2d(images.tensor, 2**level) for level in range(2, 7)}
        return rpn(images, levels)[0][0].proposal_boxes.tensor

    generator = torch.Generator().manual_seed(2)
    one, other = torch.randn(8, 64, 128, generator=generator), torch.randn(8, 256, 128, generator=generator)
    with torch.no_grad():
        traced = torch.jit.trace(boxes, (one,), check_trace=False)
        assert len(boxes(one)) != len(boxes(other))
        for image in (one, other):
            torch.testing.assert_close(traced(image), boxes(image))


def test_weights_are_those_of_the_stock_rpn():
    stock, fast = build(RPN), build(FastRPN)
    fast.load_state_dict(copy.deepcopy(stock.state_dict()))
    assert list(fast.state_dict()) == list(stock.state_dict())


def test_one_override_swaps_it_in():
    cfg = maskrcnn_ext.get_config("mask_rcnn_r18_fpn_scratch.py")
    cfg = LazyConfig.apply_overrides(cfg, ["model.proposal_generator._target_=maskrcnn_ext.FastRPN"])
    assert type(instantiate(cfg.model).proposal_generator) is FastRPN


def test_yacs_configs_name_it():
    setup_environment()
    setup_environment()
    cfg = get_cfg()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "FastRPN"
    cfg.MODEL.RPN.IN_FEATURES = ["res4"]
    rpn = build_proposal_generator(cfg, {"res4": ShapeSpec(channels=8, stride=16)})
    assert type(rpn) is FastRPN
    assert rpn.anchor_matcher.thresholds[1:-1] == cfg.MODEL.RPN.IOU_THRESHOLDS


def test_unsupported_options_raise_at_construction():
    class OwnMatcher(Matcher):
        pass

    with pytest.raises(InputError, match="not OwnMatcher: use Detectron2's RPN"):
        build(FastRPN, anchor_matcher=OwnMatcher([0.5], [0, 1]))
    rotated = RotatedAnchorGenerator(sizes=[[32]], aspect_ratios=[1.0], strides=[16], angles=[[0, 45]])
    with pytest.raises(InputError, match="does not support rotated boxes"):
        build(FastRPN, anchor_generator=rotated)


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_anchors_of_an_ignore_region_are_no_background(threshold):
    rpn = build(FastRPN, batch_size_per_image=10**6, positive_fraction=1.0, ignore_threshold=threshold)
    anchors = rpn.anchor_generator([torch.zeros(1, 8, 16, 16) for _ in range(2)] + [torch.zeros(1, 8, 4, 4)] * 3)
    plain = truth([[10, 20, 90, 80]], [])
    mask = torch.zeros(256, 256, dtype=torch.bool)
    mask[0:60, 0:200], mask[100:180, 40:44] = True, True
    with_region = copy.deepcopy(plain)
    for image in with_region:
        image.gt_unlabelled = Unlabelled(
            len(image), IgnoreRegion(mask[: image.image_size[0], : image.image_size[1]]), None
        )
    before, _ = rpn.label_and_sample_anchors(anchors, plain)
    after, _ = rpn.label_and_sample_anchors(anchors, with_region)
    boxes = Boxes.cat(anchors).tensor.double().numpy()
    for was, now, image in zip(before, after, with_region, strict=True):
        pixels = image.gt_unlabelled.region.mask.numpy()
        columns, rows = np.arange(pixels.shape[1]), np.arange(pixels.shape[0])
        x0, y0, x1, y1 = boxes.T[:, :, None]
        widths = (np.minimum(columns + 1, x1) - np.maximum(columns, x0)).clip(min=0)
        heights = (np.minimum(rows + 1, y1) - np.maximum(rows, y0)).clip(min=0)
        share = np.einsum("nh,hw,nw->n", heights, pixels.astype(float), widths) / ((x1 - x0) * (y1 - y0))[:, 0]
        expected = np.where((was.numpy() == 0) & (share >= threshold), -1, was.numpy())
        assert np.array_equal(now.numpy(), expected)
        assert (now != was).any()
        assert torch.equal(now == 1, was == 1), "anchors that match an object stay"
