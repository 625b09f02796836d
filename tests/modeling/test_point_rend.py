"""PointRend's two heads against Detectron2's yacs-only ones, and what these cannot do: polygons, no RoIs, tracing, autocast."""

import copy
import math

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.export import TracingAdapter
from detectron2.layers import ShapeSpec
from detectron2.projects import point_rend as reference
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.implicit_point_rend import ImplicitPointRendMaskHead
from maskrcnn_ext.modeling.mask_heads.point_heads import point_labels
from maskrcnn_ext.modeling.mask_heads.point_rend import PointRendMaskHead

SIZE, CHANNELS = 96, 16
STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
HEADS = [PointRendMaskHead, ImplicitPointRendMaskHead]
SMALL = {"fc_dim": 32, "point_fc_dim": 16}


def yacs(head, *, num_classes=80, agnostic=False, channels=CHANNELS, fc_dim=32, point_fc_dim=16, levels=("p2",)):
    """Detectron2's Base-PointRend-RCNN-FPN.yaml or Base-Implicit-PointRend.yaml, but for the sizes."""
    cfg = get_cfg()
    reference.add_pointrend_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = num_classes
    mask, point = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.POINT_HEAD
    mask.CONV_DIM, mask.FC_DIM, mask.POINT_HEAD_ON = channels, fc_dim, True
    mask.POOLER_TYPE, mask.IN_FEATURES, point.IN_FEATURES = "", list(levels), list(levels)
    point.FC_DIM, point.CLS_AGNOSTIC_MASK = point_fc_dim, agnostic
    if head is ImplicitPointRendMaskHead:
        point.NAME, point.SUBDIVISION_STEPS = "ImplicitPointHead", 3
    return cfg


def detectron2_head(head, **kwargs):
    channels = kwargs.get("channels", CHANNELS)
    shapes = {name: ShapeSpec(channels=channels, stride=stride) for name, stride in STRIDES.items()}
    return getattr(reference, head.__name__)(yacs(head, **kwargs), shapes)


def build(head, num_classes=3, channels=CHANNELS, **kwargs):
    shape = ShapeSpec(channels=channels, height=14, width=14)
    return head(shape, num_classes=num_classes, conv_dims=[channels] * 5, **{**SMALL, **kwargs})


def with_contrast(module, seed=0):
    """Layers that are near zero at first get weights that draw masks with both foreground and background."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "predict" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return module


def pair(head, num_classes, agnostic=False, levels=("p2",)):
    """The two implementations with equal weights."""
    theirs = with_contrast(detectron2_head(head, num_classes=num_classes, agnostic=agnostic, levels=levels))
    ours = build(head, 1 if agnostic else num_classes, num_levels=len(levels))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def pyramid(seed=1, images=2, channels=CHANNELS):
    torch.manual_seed(seed)
    return {name: torch.randn(images, channels, SIZE // stride, SIZE // stride) for name, stride in STRIDES.items()}


def ellipse(box):
    (x0, y0, x1, y1), angles = box, np.arange(40) / 40 * 2 * math.pi
    points = np.stack([(x0 + x1 + (x1 - x0) * np.cos(angles)) / 2, (y0 + y1 + (y1 - y0) * np.sin(angles)) / 2], axis=1)
    return [points.reshape(-1)]


def batch(counts=(3, 2), num_classes=3, seed=2, polygons=False, training=True):
    """Instances with an ellipse each, and a proposal that is a bit off."""
    torch.manual_seed(seed)
    found = []
    for count in counts:
        corner, size = torch.rand(count, 2) * 40, 20 + torch.rand(count, 2) * 30
        boxes = torch.cat([corner, corner + size], dim=1)
        off = (boxes + torch.rand(count, 4) * 6 - 3).clamp(0, SIZE)
        classes = torch.randint(0, num_classes, (count,))
        image = Instances((SIZE, SIZE))
        if training:
            outlines = [ellipse(box.tolist()) for box in boxes]
            image.proposal_boxes, image.gt_classes = Boxes(off), classes
            image.gt_masks = PolygonMasks(outlines) if polygons else BitMasks.from_polygon_masks(outlines, SIZE, SIZE)
        else:
            image.pred_boxes, image.pred_classes, image.scores = Boxes(off), classes, torch.rand(count)
        found.append(image)
    return found


def step(head, features, instances, seed=3):
    torch.manual_seed(seed)
    with EventStorage() as storage:
        losses = head(features, instances)
        return losses, storage.latest()


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_parameters_are_those_of_the_public_checkpoints(head, agnostic):
    full = {"channels": 256, "fc_dim": 1024, "point_fc_dim": 256}
    # Detectron2's PointRend has class-agnostic masks with one class only.
    classes = 1 if agnostic and head is PointRendMaskHead else 80
    with torch.device("meta"):  # 290 million weights, that is, without them
        theirs = detectron2_head(head, num_classes=classes, agnostic=agnostic, **full).state_dict()
        shape = ShapeSpec(channels=256, height=14, width=14)
        ours = head(shape, num_classes=1 if agnostic else 80, conv_dims=[256] * 5).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


@pytest.mark.parametrize(("num_classes", "levels"), [(1, ["p2"]), (3, ["p2"]), (3, ["p2", "p3"])])
def test_coarse_logits_equal_detectron2s(num_classes, levels):
    ours, theirs = pair(PointRendMaskHead, num_classes, levels=levels)
    boxes = [image.proposal_boxes for image in batch()]
    expected = theirs.coarse_head(theirs._roi_pooler(pyramid(), boxes))
    torch.testing.assert_close(ours.predict(pyramid(), boxes).coarse, expected, atol=1e-5, rtol=0)


CASES = [
    (PointRendMaskHead, 1, False, ["p2"]),
    (PointRendMaskHead, 3, False, ["p2"]),
    (PointRendMaskHead, 3, False, ["p2", "p3"]),
    (ImplicitPointRendMaskHead, 1, False, ["p2"]),
    (ImplicitPointRendMaskHead, 3, False, ["p2"]),
    (ImplicitPointRendMaskHead, 3, True, ["p2"]),
]


@pytest.mark.parametrize(("head", "num_classes", "agnostic", "levels"), CASES)
def test_masks_equal_detectron2s(head, num_classes, agnostic, levels):
    ours, theirs = pair(head, num_classes, agnostic, levels)
    instances = batch(num_classes=num_classes, training=False)
    with torch.no_grad():
        expected = theirs.eval()(pyramid(), copy.deepcopy(instances))
        found = ours.eval()(pyramid(), instances)
    for a, b in zip(found, expected, strict=True):
        assert a.pred_masks.shape == (len(a), 1, 224, 224)
        assert 0.02 < (a.pred_masks > 0.5).float().mean() < 0.98
        torch.testing.assert_close(a.pred_masks, b.pred_masks, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("head", "num_classes", "agnostic", "levels"), CASES)
def test_losses_and_gradients_equal_detectron2s(head, num_classes, agnostic, levels):
    ours, theirs = pair(head, num_classes, agnostic, levels)
    instances = batch(num_classes=num_classes)
    losses, scalars = step(ours.train(), pyramid(), instances)
    expected, _ = step(theirs.train(), pyramid(), instances)
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], atol=1e-5, rtol=1e-5)
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    for name, parameter in ours.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, atol=1e-5, rtol=1e-4)
    assert {f"mask_rcnn/{kind}" for kind in ("accuracy", "false_positive", "false_negative")} <= set(scalars)
    assert 0 < scalars["point/accuracy"][0] < 1


@pytest.mark.parametrize("head", HEADS)
def test_loss_weight_and_regularizer_are_factors(head):
    one, two = build(head), build(head, loss_weight=2.0)
    two.load_state_dict(one.state_dict())
    single, double = (step(module, pyramid(), batch())[0] for module in (one, two))
    for name, loss in single.items():
        torch.testing.assert_close(2 * loss, double[name])


def test_other_coarse_losses_can_be_chosen():
    head = build(PointRendMaskHead)
    plain, _ = step(head, pyramid(), batch())
    head.mask_loss = build(PointRendMaskHead, mask_loss="bce+dice").mask_loss
    more, _ = step(head, pyramid(), batch())
    assert more["loss_mask"] > plain["loss_mask"]
    assert more["loss_mask_point"] == plain["loss_mask_point"]


@pytest.mark.parametrize("counts", [(0, 4), (0, 0)])
@pytest.mark.parametrize("head", HEADS)
def test_images_without_rois(head, counts):
    module = build(head)
    losses, _ = step(module.train(), pyramid(), batch(counts))
    total = sum(losses.values())
    assert (total == 0) == (sum(counts) == 0)
    assert torch.isfinite(total)
    total.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    with torch.no_grad():
        found = module.eval()(pyramid(), batch(counts, training=False))
    assert [image.pred_masks.shape for image in found] == [(count, 1, 224, 224) for count in counts]


def test_labels_of_polygons_agree_with_those_of_bitmasks():
    coords = torch.rand(8, 400, 2, generator=torch.Generator().manual_seed(0))
    masks, outlines = (point_labels(batch((5, 0, 3), polygons=polygons), coords) for polygons in (False, True))
    assert masks.shape == outlines.shape == (8, 400)
    assert masks.dtype == outlines.dtype == torch.float32
    assert ((masks > 0.5) == (outlines > 0.5)).float().mean() > 0.97


@pytest.mark.parametrize("head", HEADS)
def test_trains_on_polygons(head):
    module = with_contrast(build(head))
    polygons, _ = step(module, pyramid(), batch(polygons=True))
    masks, _ = step(module, pyramid(), batch())
    for name, loss in polygons.items():
        torch.testing.assert_close(loss, masks[name], rtol=0.1, atol=0)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("head", HEADS)
def test_probabilities_in_training_mode(head, num_classes):
    """Mask scoring asks for them; class-agnostic masks do not look at the classes."""
    module = with_contrast(build(head, num_classes)).train()
    instances = batch()
    classes = torch.cat([image.gt_classes for image in instances])
    prediction = module.predict(pyramid(), [image.proposal_boxes for image in instances])
    with torch.no_grad():
        probs = module.probs(prediction, classes)
    assert probs.shape == (5, 1, 224, 224)
    assert 0 <= probs.min() < 0.5 < probs.max() <= 1
    if num_classes == 1:
        assert torch.equal(probs, module.probs(prediction, torch.zeros_like(classes)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:FutureWarning")
@pytest.mark.parametrize("head", HEADS)
def test_traces(head):
    module = with_contrast(build(head)).eval()

    def masks(model, features, instances):
        return [image.pred_masks for image in model(features, instances)]

    adapter = TracingAdapter(module, (pyramid(), batch(training=False)), inference_func=masks)
    with torch.no_grad():
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        # Other features, boxes and classes of the same number.
        other = TracingAdapter(module, (pyramid(5), batch(seed=6, training=False)), inference_func=masks)
        for inputs in (adapter.flattened_inputs, other.flattened_inputs):
            for a, b in zip(traced(*inputs), adapter(*inputs), strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", HEADS)
def test_runs_under_autocast(head):
    module = with_contrast(build(head))
    exact, _ = step(module.train(), pyramid(), batch())
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = step(module, pyramid(), batch())
        sum(losses.values()).backward()
        with torch.no_grad():
            found = module.eval()(pyramid(), batch(training=False))
    for name, loss in losses.items():
        torch.testing.assert_close(loss, exact[name], rtol=0.05, atol=0)
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())
    with torch.no_grad():
        expected = module(pyramid(), batch(training=False))
    for a, b in zip(found, expected, strict=True):
        assert ((a.pred_masks > 0.5) == (b.pred_masks > 0.5)).float().mean() > 0.97


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_builds_from_a_plain_yacs_config(head, agnostic):
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7
    cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = agnostic
    cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""
    with torch.device("meta"):
        module = head(cfg, {name: ShapeSpec(channels=256, stride=stride) for name, stride in STRIDES.items()})
    assert module.num_classes == (1 if agnostic else 7)
    assert module.strides == list(STRIDES.values())


@pytest.mark.parametrize("head", HEADS)
def test_mistakes_are_told_in_one_line(head):
    with pytest.raises(InputError, match=r"set model\.roi_heads\.mask_pooler=null"):
        build(head)(torch.zeros(5, CHANNELS, 14, 14), batch())
    with pytest.raises(InputError, match=r"num_levels to 1 ... 4"):
        build(head, num_levels=5)
    with pytest.raises(InputError, match="even side"):
        head(ShapeSpec(channels=CHANNELS, height=7, width=7), num_classes=3, conv_dims=[CHANNELS])


def test_the_first_implicit_mask_is_a_square():
    with pytest.raises(InputError, match="subdivision_num_points=784"):
        build(ImplicitPointRendMaskHead, subdivision_num_points=800)


def test_subdivision_starts_where_it_makes_a_difference():
    head = with_contrast(build(PointRendMaskHead, subdivision_steps=1, coarse_size=6)).eval()
    found = head(pyramid(), batch(training=False))
    assert found[0].pred_masks.shape[-1] == 12
    assert (head.start_size, head.subdivision_steps) == (12, 0)
