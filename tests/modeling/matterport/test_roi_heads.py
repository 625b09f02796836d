"""Matterport's selection of detections."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances

from maskrcnn_ext.modeling.matterport.boxes import InclusiveBoxTransform
from maskrcnn_ext.modeling.matterport.roi_heads import MatterportOutputLayers


def transform(weights=(10.0, 10.0, 5.0, 5.0)):
    return InclusiveBoxTransform(weights=list(weights), scale_clamp=80.0)


def predictor(**more):
    options = {"test_score_thresh": 0.5, "test_nms_thresh": 0.3, "test_topk_per_image": 10, **more}
    return MatterportOutputLayers(ShapeSpec(channels=4), box2box_transform=transform(), num_classes=2, **options)


def detections(probabilities, boxes, window=None, deltas=None, **more):
    logits = torch.tensor(probabilities).view(-1, 3).log()
    proposals = Instances((100, 100), proposal_boxes=Boxes(torch.tensor(boxes).view(-1, 4)))
    if window:
        proposals.window = torch.tensor([window] * len(boxes), dtype=torch.float32).view(-1, 4)
    deltas = torch.zeros(len(logits), 8) if deltas is None else deltas
    (found,), (kept,) = predictor(**more).inference((logits, deltas), [proposals])
    return found, kept.tolist()


APART = [[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [60, 60, 70, 70]]


def test_a_proposal_has_one_class_at_most():
    probabilities = [[0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1], [0.45, 0.4, 0.15]]
    found, kept = detections(probabilities, APART)
    # The second is background, the last one not sure enough; 0.5 is enough.
    assert kept == [0, 2]
    assert found.pred_classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.6, 0.5])
    assert detections(probabilities, APART, test_topk_per_image=1)[1] == [0]


def test_nms_is_applied_per_class():
    boxes = [[0.0, 0, 20, 20], [1, 1, 21, 21], [2, 2, 22, 22]]
    _, kept = detections([[0.8, 0.1, 0.1], [0.9, 0.05, 0.05], [0.1, 0.7, 0.2]], boxes)
    assert kept == [1, 2]


def test_a_box_is_that_of_its_class_and_inside_of_the_window():
    deltas = torch.zeros(1, 8)
    deltas[0, 4] = 10  # the second class moves by its width
    found, _ = detections([[0.1, 0.9, 0.0]], [[10.0, 10, 31, 31]], window=[0, 15, 45, 80], deltas=deltas)
    assert found.pred_boxes.tensor.tolist() == [[30, 15, 45, 31]]
    found, _ = detections([[0.1, 0.9, 0.0]], [[90.0, 10, 131, 31]])  # no window: the image
    assert found.pred_boxes.tensor.tolist() == [[90, 10, 100, 31]]


def test_no_proposals_and_nan_give_no_detections():
    assert len(detections([], [])[0]) == 0
    found, _ = detections([[math.nan] * 3], [[0.0, 0, 10, 10]])
    assert len(found) == 0
