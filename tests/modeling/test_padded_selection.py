"""The selection of proposals and detections in fixed shapes, against Detectron2's own functions."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

from maskrcnn_ext.modeling.padded_selection import clip_padded, select_detections_padded, select_proposals_padded
from tests.helpers.candidate_boxes import NUM_IMAGES, SIZE, classified, levels

SIZES = torch.tensor([SIZE] * NUM_IMAGES, dtype=torch.float32)


@pytest.mark.parametrize("limit", [10, 1000])
def test_proposals_equal_those_of_detectron2(limit):
    boxes, logits = zip(*levels(), strict=True)
    expected = find_top_rpn_proposals(boxes, logits, [SIZE] * NUM_IMAGES, 0.5, 1000, limit, 2.0, training=False)
    padded, scores = select_proposals_padded(levels(), SIZES, min_size=2.0, nms_threshold=0.5, limit=limit)
    for image, found in enumerate(expected):
        assert 0 < len(found) <= limit
        valid = scores[image] > -torch.inf
        assert torch.equal(padded[image, valid], found.proposal_boxes.tensor)
        assert torch.equal(scores[image, valid], found.objectness_logits)


@pytest.mark.parametrize("limit", [7, 100])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_detections_equal_those_of_detectron2(class_agnostic, limit):
    boxes, probs = classified()
    boxes = boxes[:, :4] if class_agnostic else boxes
    expected, _ = fast_rcnn_inference(boxes.split(20), probs.split(20), [SIZE] * NUM_IMAGES, 0.2, 0.4, limit)
    padded, scores, classes = select_detections_padded(
        boxes.view(2, 20, -1, 4),
        probs.view(2, 20, -1),
        torch.ones(2, 20, dtype=torch.bool),
        SIZES,
        score_threshold=0.2,
        nms_threshold=0.4,
        limit=limit,
    )
    for number, found in enumerate(expected):
        assert 0 < len(found) <= limit
        valid = scores[number] > -torch.inf
        assert torch.equal(padded[number, valid], found.pred_boxes.tensor)
        assert torch.equal(scores[number, valid], found.scores)
        assert torch.equal(classes[number, valid], found.pred_classes)


def test_padding_has_no_detections():
    boxes, probs = classified()
    *_, scores, _ = select_detections_padded(
        boxes.view(2, 20, -1, 4),
        probs.view(2, 20, -1),
        torch.tensor([[True], [False]]).expand(2, 20),
        SIZES,
        score_threshold=0.2,
        nms_threshold=0.4,
        limit=50,
    )
    assert (scores[0] > 0).any()
    assert (scores[1] == -torch.inf).all()


def test_boxes_that_are_not_finite_become_zero():
    boxes = torch.tensor([[[[-5.0, 10.0, 90.0, 20.0]]], [[[torch.nan, 1.0, 2.0, 3.0]]]])
    clipped, finite = clip_padded(boxes, SIZES)
    assert clipped.tolist() == [[[[0, 10, 80, 20]]], [[[0, 0, 0, 0]]]]
    assert finite.tolist() == [[[True]], [[False]]]
