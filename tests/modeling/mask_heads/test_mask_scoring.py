"""MaskScoringHead: its target, its scores, and every head as its base."""

import pytest
import torch
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

import maskrcnn_ext
from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.mask_heads.mask_scoring import find_base, mask_iou
from maskrcnn_ext.modeling.parts import MASK_HEADS
from tests.helpers.mask_heads import build, detections, features, truth


@pytest.mark.parametrize("polygons", [False, True])
def test_mask_iou_counts_ground_truth_outside_the_box(polygons):
    """A box over the left half of a square; the mask fills the box: IoU a half with the whole object."""
    outline = [[10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]]
    image = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[10.0, 10.0, 30.0, 50.0]])))
    image.gt_masks = PolygonMasks([outline]) if polygons else BitMasks.from_polygon_masks([outline], 64, 64)
    assert mask_iou(torch.ones(1, 28, 28), [image]).item() == pytest.approx(0.5, abs=0.01)
    assert mask_iou(torch.zeros(1, 28, 28), [image]).item() == 0


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
    small = {"fc_dim": 16, "point_fc_dim": 8} if "PointRend" in base else {}
    head = build("MaskScoringHead", base=f"maskrcnn_ext.{base}", base_options=small)
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
