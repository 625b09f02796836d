"""The selection of proposals and detections in one list, against Detectron2's own functions."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference

from maskrcnn_ext.modeling.list_selection import (
    first_of_each_image,
    nms,
    select_detections,
    select_proposals,
    separate_groups,
)
from tests.helpers.candidate_boxes import NUM_CLASSES, NUM_IMAGES, SIZE, classified, levels


@pytest.mark.parametrize("limit", [10, 1000])
def test_proposals_equal_those_of_detectron2(limit):
    boxes, logits = zip(*levels(), strict=True)
    expected = find_top_rpn_proposals(boxes, logits, [SIZE] * NUM_IMAGES, 0.5, 1000, limit, 2.0, training=False)
    rois = select_proposals(levels(), SIZE, NUM_IMAGES, min_size=2.0, nms_threshold=0.5, limit=limit)
    for image, found in enumerate(expected):
        assert 0 < len(found) <= limit
        assert torch.equal(rois[rois[:, 0] == image, 1:], found.proposal_boxes.tensor)


@pytest.mark.parametrize("limit", [7, 100])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_detections_equal_those_of_detectron2(class_agnostic, limit):
    boxes, probs = classified()
    boxes = boxes[:, :4] if class_agnostic else boxes
    image = torch.arange(40) // 20
    expected, _ = fast_rcnn_inference(boxes.split(20), probs.split(20), [SIZE] * NUM_IMAGES, 0.2, 0.4, limit)
    rois = torch.cat([image[:, None].float(), torch.zeros(40, 4)], dim=1)
    rois, scores, classes = select_detections(
        rois, boxes, probs, SIZE, NUM_IMAGES, score_threshold=0.2, nms_threshold=0.4, limit=limit
    )
    for number, found in enumerate(expected):
        assert 0 < len(found) <= limit
        of_image = rois[:, 0] == number
        assert torch.equal(rois[of_image, 1:], found.pred_boxes.tensor)
        assert torch.equal(scores[of_image], found.scores)
        assert torch.equal(classes[of_image], found.pred_classes)


def test_no_proposals_return_no_detections():
    rois, scores, classes = select_detections(
        torch.zeros(0, 5),
        torch.zeros(0, 4 * NUM_CLASSES),
        torch.zeros(0, NUM_CLASSES + 1),
        SIZE,
        1,
        score_threshold=0.1,
        nms_threshold=0.5,
        limit=10,
    )
    assert rois.shape == (0, 5)
    assert scores.shape == classes.shape == (0,)


def test_classes_do_not_suppress_each_other():
    classes = 300
    boxes = torch.tensor([[10.0, 10, 50, 50], [12, 10, 50, 50]])
    probs = torch.full((2, classes + 1), 0.06)
    probs[1] = 0.07
    found, scores, kinds = select_detections(
        torch.zeros(2, 5), boxes, probs, (60, 60), 1, score_threshold=0.05, nms_threshold=0.5, limit=400
    )
    assert len(found) == classes
    assert set(kinds.tolist()) == set(range(classes))
    assert torch.equal(scores, torch.full((classes,), 0.07))


def test_groups_do_not_overlap():
    groups = torch.arange(30)
    moved = separate_groups(torch.tensor([[0.0, 0.0, 80.0, 60.0]]).expand(30, 4), groups, SIZE)
    assert len(nms(moved, torch.rand(30), 0.0)) == 30
    assert moved.max() <= 6 * 80  # a square grid, not a row


def test_a_negative_limit_keeps_all():
    images = torch.tensor([1.0, 0, 1, 1, 0])
    assert first_of_each_image(images, -1, 2).tolist() == [1, 4, 0, 2, 3]
    assert first_of_each_image(images[:0], -1, 2).tolist() == []
