"""The selection of proposals and detections on tensors, in both layouts, against Detectron2's own functions."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes

from maskrcnn_ext.modeling.list_selection import (
    first_of_each_image,
    nms,
    select_detections,
    select_proposals,
    separate_groups,
)
from maskrcnn_ext.modeling.padded_selection import select_detections_padded, select_proposals_padded
from maskrcnn_ext.modeling.tensor_inference import clip_boxes, decode_top_anchors, flatten_anchors, image_window

SIZE = (60, 80)
SIZES = torch.tensor([SIZE, SIZE], dtype=torch.float32)
NUM_IMAGES = 2
NUM_CLASSES = 3


def random_boxes(*shape):
    """Boxes around an image of `SIZE`: some lie across its border, some outside."""
    centres = torch.rand(*shape, 2) * 100 - 10
    sides = torch.rand(*shape, 2) * 40
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)


@pytest.fixture
def levels():
    """Boxes and logits of three levels, by descending logit, with values that are not finite."""
    torch.manual_seed(0)
    found = []
    for count in (50, 20, 5):
        boxes, logits = random_boxes(NUM_IMAGES, count), torch.randn(NUM_IMAGES, count).sort(descending=True).values
        boxes[0, 1], boxes[1, 2, 3], logits[1, -1] = torch.nan, torch.inf, -torch.inf
        found.append((boxes, logits))
    return found


@pytest.fixture
def classified():
    """Boxes (R, K * 4) and probabilities (R, K + 1) of 40 proposals, one with a box and one with a probability of NaN."""
    torch.manual_seed(1)
    boxes, probs = random_boxes(40, NUM_CLASSES).flatten(1), torch.randn(40, NUM_CLASSES + 1).softmax(dim=1)
    boxes[3, 0], probs[30, 1] = torch.nan, torch.nan
    return boxes, probs


@pytest.mark.parametrize("limit", [10, 1000])
def test_proposals_equal_those_of_detectron2(levels, limit):
    settings = {"min_size": 2.0, "nms_threshold": 0.5, "limit": limit}
    boxes, logits = zip(*levels, strict=True)
    expected = find_top_rpn_proposals(boxes, logits, [SIZE] * NUM_IMAGES, 0.5, 1000, limit, 2.0, training=False)
    rois = select_proposals(levels, SIZE, NUM_IMAGES, **settings)
    padded, valid = select_proposals_padded(levels, SIZES, **settings)
    for image, found in enumerate(expected):
        assert 0 < len(found) <= limit
        assert torch.equal(rois[rois[:, 0] == image, 1:], found.proposal_boxes.tensor)
        assert torch.equal(padded[image, valid[image]], found.proposal_boxes.tensor)


@pytest.mark.parametrize("limit", [7, 100])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_detections_equal_those_of_detectron2(classified, class_agnostic, limit):
    boxes, probs = classified
    boxes = boxes[:, :4] if class_agnostic else boxes
    settings = {"score_threshold": 0.2, "nms_threshold": 0.4, "limit": limit}
    image = torch.arange(40) // 20
    expected, _ = fast_rcnn_inference(
        boxes.split(20), probs.split(20), [SIZE] * NUM_IMAGES, settings["score_threshold"], 0.4, limit
    )
    rois = torch.cat([image[:, None].float(), torch.zeros(40, 4)], dim=1)
    rois, scores, classes = select_detections(rois, boxes, probs, SIZE, NUM_IMAGES, **settings)
    padded, padded_scores, padded_classes = select_detections_padded(
        boxes.view(2, 20, -1, 4), probs.view(2, 20, -1), torch.ones(2, 20, dtype=torch.bool), SIZES, **settings
    )
    for number, found in enumerate(expected):
        assert 0 < len(found) <= limit
        own, valid = rois[:, 0] == number, padded_scores[number] > -torch.inf
        for field, values, padded_values in (
            (found.pred_boxes.tensor, rois[:, 1:], padded),
            (found.scores, scores, padded_scores),
            (found.pred_classes, classes, padded_classes),
        ):
            assert torch.equal(values[own], field)
            assert torch.equal(padded_values[number, valid], field)


def test_padding_has_no_detections(classified):
    boxes, probs = classified
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


def test_clipping_equals_detectron2s():
    boxes = torch.randn(50, 4) * 100
    expected = Boxes(boxes.clone())
    expected.clip(SIZE)
    assert torch.equal(clip_boxes(boxes, image_window(SIZE)), expected.tensor)


def test_a_clipped_box_keeps_its_least_length():
    outside = torch.tensor([[-30.0, 100, -10, 120]])
    assert clip_boxes(outside, image_window(SIZE), min_length=1).tolist() == [[0, 59, 1, 60]]
    windows = torch.tensor([[1.0, 3, 7, 8]])
    assert clip_boxes(torch.tensor([[-5.0, 2, 8, 9]]), windows.unbind(-1), min_length=1).tolist() == [[1, 3, 7, 8]]


@pytest.mark.parametrize("limit", [4, 30])
def test_the_anchors_with_the_highest_logits_are_decoded(limit):
    torch.manual_seed(0)
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    anchors, logits, deltas = random_boxes(12), torch.randn(NUM_IMAGES, 12), torch.randn(NUM_IMAGES, 12, 4) * 0.1
    boxes, best = decode_top_anchors(transform, anchors, logits, deltas, limit)
    order = logits.argsort(dim=1, descending=True)[:, :limit]
    assert torch.equal(best, logits.gather(1, order))
    for image, index in enumerate(order):
        assert torch.equal(boxes[image], transform.apply_deltas(deltas[image, index], anchors[index]))
    filled, filled_logits = decode_top_anchors(transform, anchors, logits, deltas, limit, fill=True)
    count = min(limit, 12)
    assert filled.shape == (NUM_IMAGES, limit, 4)
    assert torch.equal(filled[:, :count], boxes)
    assert torch.equal(filled_logits[:, :count], best)
    assert (filled_logits[:, count:] == -torch.inf).all()


def test_predictions_are_flattened_in_the_order_of_the_anchors():
    maps = torch.randn(2, 3 * 4, 5, 6)
    # Detectron2's RPN.forward
    expected = maps.view(2, -1, 4, 5, 6).permute(0, 3, 4, 1, 2).flatten(1, -2)
    assert torch.equal(flatten_anchors(maps, 4), expected)


def test_groups_do_not_overlap():
    groups = torch.arange(30)
    moved = separate_groups(torch.tensor([[0.0, 0.0, 80.0, 60.0]]).expand(30, 4), groups, SIZE)
    assert len(nms(moved, torch.rand(30), 0.0)) == 30
    assert moved.max() <= 6 * 80  # a square grid, not a row


def test_a_negative_limit_keeps_all():
    images = torch.tensor([1.0, 0, 1, 1, 0])
    assert first_of_each_image(images, -1, 2).tolist() == [1, 4, 0, 2, 3]
    assert first_of_each_image(images[:0], -1, 2).tolist() == []
