"""Box arithmetic that counts from the first to the last pixel."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.modeling.matterport.boxes import InclusiveBoxTransform, nms_inclusive


def transform(weights=(10.0, 10.0, 5.0, 5.0)):
    return InclusiveBoxTransform(weights=list(weights), scale_clamp=80.0)


def test_deltas_move_boxes_by_extents_without_the_last_pixel():
    boxes = torch.tensor([[10.0, 20, 31, 61]])  # 20 and 40 from the first to the last pixel
    deltas = torch.tensor([[1.0, -1, 5 * math.log(2), 0, 0, 0, 0, 0]])
    moved = transform().apply_deltas(deltas, boxes)
    # Centre (20 + 2, 40 - 4), extents 40 and 40, and then the last pixel; the second class stays.
    assert torch.allclose(moved, torch.tensor([[2.0, 16, 43, 57, 10, 20, 31, 61]]), atol=1e-4)


def test_growth_has_no_limit():
    grown = transform().apply_deltas(torch.tensor([[0.0, 0, 25, 25]]), torch.tensor([[0.0, 0, 11, 11]]))
    assert torch.allclose(grown[:, 2] - grown[:, 0] - 1, torch.tensor([10 * math.exp(5)]), rtol=1e-4)


corner, extent = st.floats(0, 500), st.floats(2.5, 500)


@settings(max_examples=30, deadline=None)
@given(st.tuples(corner, corner, extent, extent), st.tuples(corner, corner, extent, extent))
def test_deltas_are_undone(a, b):
    source, target = (torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32) for x, y, w, h in (a, b))
    deltas = transform().get_deltas(source, target)
    assert torch.allclose(transform().apply_deltas(deltas, source), target, atol=0.05)


@pytest.mark.parametrize("width", [0.0, 0.5, 1.0, 1.5])
def test_objects_of_a_pixel_have_finite_deltas(width):
    small = torch.tensor([[5.0, 5, 5 + width, 9]])
    large = torch.tensor([[0.0, 0, 20, 20]])
    assert transform().get_deltas(large, small).isfinite().all()
    assert transform().get_deltas(small, large).isfinite().all()


def test_overlaps_are_those_of_extents_without_the_last_pixel():
    # 3 of 5 pixels are common, 2 of 4 from first to last: 3 / 7 of Detectron2's union, 1 / 3 of this one.
    boxes = torch.tensor([[0.0, 0, 5, 101], [2, 0, 7, 101]])
    scores, groups = torch.tensor([0.5, 0.9]), torch.tensor([0, 0])
    assert nms_inclusive(boxes, scores, groups, 0.34).tolist() == [1, 0]
    assert nms_inclusive(boxes, scores, groups, 0.33).tolist() == [1]
    assert nms_inclusive(boxes, scores, torch.tensor([0, 1]), 0.33).tolist() == [1, 0]


def test_the_transform_is_detectron2s_on_boxes_without_the_last_pixel():
    torch.manual_seed(0)
    boxes, deltas = torch.rand(20, 4) * 50 + torch.tensor([0.0, 0, 60, 60]), torch.randn(20, 4)
    ours = transform().apply_deltas(deltas, boxes)
    last = torch.tensor([0.0, 0, 1, 1])
    theirs = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)).apply_deltas(deltas, boxes - last) + last
    assert torch.equal(ours, theirs)
