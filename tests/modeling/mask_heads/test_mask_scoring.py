"""MaskScoringHead: its target, loss, gradient and scores against references, and every head as its base."""

import numpy as np
import pytest
import torch
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

import maskrcnn_ext
from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.mask_heads.mask_scoring import find_base, mask_iou, mask_iou_loss
from maskrcnn_ext.modeling.parts import MASK_HEADS
from tests.helpers.mask_heads import build, detections, features, small_options, truth


@pytest.mark.parametrize("polygons", [False, True])
def test_mask_iou_counts_ground_truth_outside_the_box(polygons):
    """A box over the left half of a square; the mask fills the box: IoU a half with the whole object."""
    outline = [[10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]]
    image = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[10.0, 10.0, 30.0, 50.0]])))
    image.gt_masks = PolygonMasks([outline]) if polygons else BitMasks.from_polygon_masks([outline], 64, 64)
    assert mask_iou(torch.ones(1, 28, 28), [image]).item() == pytest.approx(0.5, abs=0.01)
    assert mask_iou(torch.zeros(1, 28, 28), [image]).item() == 0


def test_mask_iou_is_the_ratio_of_areas_that_the_authors_count():
    """Their target: the area of the ground truth in cells is that inside the box, divided by the part of its pixels inside the box."""
    outline = [[12.0, 8.0, 60.0, 20.0, 44.0, 64.0, 8.0, 40.0]]
    box = torch.tensor([[16.0, 4.0, 44.0, 60.0]])
    image = Instances((80, 80), proposal_boxes=Boxes(box), gt_masks=BitMasks.from_polygon_masks([outline], 80, 80))
    probs = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    whole = image.gt_masks.tensor[0].numpy()
    cells, predicted = image.gt_masks.crop_and_resize(box, 28)[0].numpy(), probs[0].numpy() > 0.5
    full = cells.sum() / (whole[4:60, 16:44].sum() / whole.sum())
    overlap = (predicted & cells).sum()
    expected = overlap / (predicted.sum() + full - overlap)
    assert mask_iou(probs, [image]).item() == pytest.approx(expected, rel=0.03)  # cells of two pixels


def test_the_loss_is_half_the_squared_error_of_targets_above_zero():
    predicted, targets = np.array([0.2, 0.9, -0.4, 0.5]), np.array([0.5, 0.0, 0.7, 1.0])
    expected = 0.5 * ((predicted - targets)[[0, 2, 3]] ** 2).mean()
    assert mask_iou_loss(torch.tensor(predicted), torch.tensor(targets)).item() == pytest.approx(expected, rel=1e-6)
    assert mask_iou_loss(torch.tensor([0.3]), torch.zeros(1)).item() == 0


@pytest.mark.parametrize("mask_gradient", [True, False])
def test_the_loss_of_the_iou_trains_the_masks_unless_disabled(mask_gradient):
    head = build("MaskScoringHead", mask_gradient=mask_gradient)
    with EventStorage():
        head(features("MaskScoringHead"), truth())["loss_mask_iou"].backward()
    gradients = [parameter.grad for parameter in head.base.parameters()]
    if not mask_gradient:
        assert gradients == [None] * len(gradients)
        return
    # The reference: the branch on the maximum of the logits' probabilities in windows of 2 x 2, differentiated with them.
    other = build("MaskScoringHead")
    x, classes = features("MaskScoringHead"), torch.cat([image.gt_classes for image in truth()])
    probs = other.base.layers(x)[torch.arange(5), classes].sigmoid()
    pooled = probs.view(5, 14, 2, 14, 2).amax((2, 4))
    hidden = other.iou_convs(torch.cat([x, pooled[:, None]], dim=1)).flatten(1)
    predicted = other.iou_predictor(other.iou_fcs(hidden))[torch.arange(5), classes]
    mask_iou_loss(predicted, mask_iou(probs, truth())).backward()
    assert all(gradient.any() for gradient in gradients)
    for gradient, parameter in zip(gradients, other.base.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_mask_scores_are_class_scores_times_predicted_iou():
    head = build("MaskScoringHead").eval()
    torch.nn.init.constant_(head.iou_predictor.weight, 0)
    head.iou_predictor.bias.data = torch.tensor([0.5, -1.0, 2.0])
    with torch.no_grad():
        found = head(features("MaskScoringHead"), detections())
    for image in found:
        expected = image.scores * torch.tensor([0.5, 0.0, 1.0])[image.pred_classes]  # clamped to [0, 1]
        torch.testing.assert_close(image.pred_mask_scores, expected)


@pytest.mark.parametrize("base", [part.name for part in MASK_HEADS if part.name != "MaskScoringHead"])
def test_mask_scoring_wraps_every_head(base):
    head = build("MaskScoringHead", base=f"maskrcnn_ext.{base}", base_options=small_options(base))
    alone = build(base)
    x = features(base)
    head.base.load_state_dict(alone.state_dict())
    with EventStorage():
        torch.manual_seed(4)
        losses = head(x, truth())
        torch.manual_seed(4)
        expected = alone(x, truth())
    assert losses.keys() == {*expected, "loss_mask_iou"}
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    head.eval(), alone.eval()
    with torch.no_grad():
        for a, b in zip(head(x, detections()), alone(x, detections()), strict=True):
            torch.testing.assert_close(a.pred_masks, b.pred_masks)
            assert a.pred_mask_scores.shape == (len(a),)
        empty = head(features(base, 0), detections((0, 0)))
    assert [len(image.pred_mask_scores) for image in empty] == [0, 0]


def test_mask_scoring_accepts_an_instantiated_head():
    base = build("DCTMaskHead", num_coefficients=100)
    assert build("MaskScoringHead", base=base).base is base


def test_mask_scoring_wraps_mask_heads_only():
    assert find_base("DCTMaskHead") is maskrcnn_ext.DCTMaskHead
    for base in ("DCTMask", "no.such.Head", "maskrcnn_ext.MaskScoringHead", MaskRCNNConvUpsampleHead, 3):
        with pytest.raises(InputError, match=r"MaskScoringHead needs .*set model.roi_heads.mask_head.base="):
            find_base(base)
