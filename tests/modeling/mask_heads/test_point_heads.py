"""Both PointRend heads against Detectron2's, and what Detectron2's cannot do: polygons, no RoIs, tracing, autocast."""

import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.export import TracingAdapter
from detectron2.layers import ShapeSpec

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.point_heads import point_labels
from maskrcnn_ext.modeling.mask_heads.point_rend import PointRendMaskHead
from tests.helpers.point_heads import (
    CASES,
    CHANNELS,
    HEADS,
    STRIDES,
    batch,
    build,
    detectron2_head,
    pair,
    pyramid,
    step,
    with_contrast,
)


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


@pytest.mark.parametrize(("head", "num_classes", "agnostic", "levels"), CASES)
def test_masks_equal_detectron2s(head, num_classes, agnostic, levels):
    ours, theirs = pair(head, num_classes, agnostic, levels)
    instances = batch(num_classes=num_classes, training=False)
    with torch.no_grad():
        expected = theirs.eval()(pyramid(), copy.deepcopy(instances))
        found = ours.eval()(pyramid(), instances)
    for a, b in zip(found, expected, strict=True):
        assert a.pred_masks.shape == (len(a), 1, 224, 224)
        assert 0.01 < (a.pred_masks > 0.5).float().mean() < 0.99  # not of one value
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
def test_invalid_arguments_raise_one_line_with_the_fix(head):
    with pytest.raises(InputError, match=r"set model\.roi_heads\.mask_pooler=null"):
        build(head)(torch.zeros(5, CHANNELS, 14, 14), batch())
    with pytest.raises(InputError, match=r"num_levels to a number from 1 to 4"):
        build(head, num_levels=5)
    with pytest.raises(InputError, match="even side"):
        head(ShapeSpec(channels=CHANNELS, height=7, width=7), num_classes=3, conv_dims=[CHANNELS])
