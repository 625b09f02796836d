"""The steps of Detectron2's inference on tensors, against its own functions."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes

from maskrcnn_ext.modeling.tensor_inference import clip_boxes, decode_top_anchors, flatten_anchors, image_window
from tests.helpers.candidate_boxes import NUM_IMAGES, SIZE, random_boxes


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
