"""MMDetection's box transform, cascade and mean of masks."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from maskrcnn_ext import get_config
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.optimization.optimize import optimize
from maskrcnn_ext.interop.export.graph import Exportable
from maskrcnn_ext.modeling.mmdet_parts import (
    MeanLogitCascadeROIHeads,
    MeanMaskHead,
    SymmetricBox2BoxTransform,
    select_box,
)
from tests.helpers.calibration import matched
from tests.helpers.mmdet_reference import decode
from tests.helpers.random_models import INPUTS, spread


def test_boxes_neither_grow_nor_shrink_beyond_the_limit():
    boxes = torch.tensor([[0.0, 0.0, 100.0, 200.0], [300.0, 300.0, 400.0, 500.0]])
    deltas = torch.tensor([[0.1, -0.2, -50.0, 3.0], [0.0, 0.3, 2.0, -50.0]]).repeat(1, 2)
    found = SymmetricBox2BoxTransform((10.0, 10.0, 5.0, 5.0)).apply_deltas(deltas, boxes)
    expected = decode(boxes, deltas[:, :4], (0.1, 0.1, 0.2, 0.2), (1e4, 1e4))
    assert ((found[:, 2:4] - found[:, :2]) / (boxes[:, 2:] - boxes[:, :2])).min() == pytest.approx(16 / 1000, rel=1e-4)
    torch.testing.assert_close(found.clamp(min=0), expected.repeat(1, 2))


@pytest.fixture(scope="module")
def model():
    """A cascade with a box for each class, and the mean of three mask heads."""
    torch.manual_seed(0)
    cfg = get_config("cascade_mask_rcnn_r18_fpn_scratch.py").model
    heads = cfg.roi_heads
    heads.update(_target_=MeanLogitCascadeROIHeads, num_classes=5)
    for predictor in heads.box_predictors:
        predictor.update(test_score_thresh=0.02, test_topk_per_image=20, cls_agnostic_bbox_reg=False)
    heads.mask_head.update(_target_=MeanMaskHead, num_heads=2, conv_dims=[32, 32])
    cfg.proposal_generator.update(pre_nms_topk=[200, 200], post_nms_topk=[60, 60])
    return spread(instantiate(cfg))


def assert_same(found, expected, *, pixels, score):
    boxes, classes = expected.pred_boxes.tensor, expected.pred_classes
    order, difference = matched(found[0], found[2], boxes, classes)
    assert difference < pixels
    torch.testing.assert_close(found[1][order], expected.scores, atol=score, rtol=0)
    return order


@torch.no_grad()
def test_export_and_optimize_have_the_same_detections(model):
    (expected,) = model.inference(INPUTS[:1], do_postprocess=False)
    assert len(expected) > 10
    boxes, scores, classes, masks = Exportable(model)(INPUTS[0]["image"])
    order = assert_same((boxes, scores, classes), expected, pixels=1e-2, score=1e-4)
    torch.testing.assert_close(masks[order], expected.pred_masks[:, 0], atol=1e-3, rtol=0)
    (fast,) = optimize(model, dtype="fp32").inference(INPUTS[:1], do_postprocess=False)
    order = assert_same((fast.pred_boxes.tensor, fast.scores, fast.pred_classes), expected, pixels=1e-2, score=1e-4)
    torch.testing.assert_close(fast.pred_masks[order], expected.pred_masks, atol=1e-3, rtol=0)


@pytest.mark.parametrize("objects", [0, 2])
def test_all_stages_and_masks_are_trained(model, objects):
    image = INPUTS[0]["image"]
    truth = Instances(image.shape[1:])
    truth.gt_boxes = Boxes(torch.tensor([[5.0, 5, 60, 70], [80, 20, 140, 90]])[:objects])
    truth.gt_classes = torch.tensor([1, 4])[:objects]
    masks = torch.zeros(objects, *image.shape[1:], dtype=torch.bool)
    masks[:, 20:60] = True
    truth.gt_masks = BitMasks(masks)
    model.train()
    with EventStorage():
        losses = model([{"image": image, "instances": truth}])
    model.eval()
    sum(losses.values()).backward()
    names = {f"loss_{kind}_stage{stage}" for stage in range(3) for kind in ("cls", "box_reg")}
    assert names | {"loss_mask"} <= losses.keys()
    heads = model.roi_heads
    trained = [*heads.box_predictor, *heads.mask_head.heads]
    assert all(parameter.grad is not None for part in trained for parameter in part.parameters())
    model.zero_grad()


def test_box_of_the_class():
    boxes = torch.arange(24.0).reshape(2, 12)
    assert select_box(boxes, torch.tensor([2, 0])).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert select_box(boxes[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 4)


@torch.no_grad()
def test_mean_of_masks():
    shape = ShapeSpec(channels=4, height=14, width=14)
    head = MeanMaskHead(shape, num_classes=3, conv_dims=[4, 4], num_heads=2).eval()
    x, classes = torch.randn(5, 4, 14, 14), torch.tensor([0, 1, 2, 0, 1])
    found = head.probs(head.predict(x, [Boxes(torch.zeros(5, 4))]), classes)
    each = [one.layers(x).sigmoid()[torch.arange(5), classes] for one in head.heads]
    torch.testing.assert_close(found[:, 0], (each[0] + each[1]) / 2)
    assert head.probs(head.predict(x[:0], [Boxes(torch.zeros(0, 4))]), classes[:0]).shape == (0, 1, 28, 28)
    with pytest.raises(InputError, match="num_heads=0"):
        MeanMaskHead(shape, num_classes=3, conv_dims=[4, 4], num_heads=0)
