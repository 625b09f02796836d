"""Suppression of sorted boxes against torchvision's nms."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.ops.native import loads
from maskrcnn_ext.ops.sorted_nms import _suppress, library, sorted_nms


def lists(seed, number, length, side):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, length, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + torch.rand(number, length, 2, generator=generator) * side], dim=2)
    return boxes, torch.rand(number, length, generator=generator) > 0.2


def expected(boxes, valid, threshold):
    stays = torch.zeros_like(valid)
    for own, there, result in zip(boxes, valid, stays, strict=True):
        index = there.nonzero()[:, 0]
        result[index[torchvision.ops.nms(own[index], -index.float(), threshold)]] = True
    return stays


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 4), st.integers(0, 60), st.sampled_from([1, 40]), st.floats(0, 1))
def test_it_keeps_the_same_boxes_as_torchvision(seed, number, length, side, threshold):
    boxes, valid = lists(seed, number, length, side)
    assert torch.equal(sorted_nms(boxes, valid, threshold), expected(boxes, valid, threshold))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 40), st.floats(0, 1))
def test_it_keeps_the_same_boxes_without_the_library(seed, length, threshold):
    boxes, valid = lists(seed, 2, length, 40)
    assert torch.equal(_suppress(boxes, valid, threshold), expected(boxes, valid, threshold))


@pytest.mark.skipif(not loads(library), reason="no compiled library")
@pytest.mark.parametrize("threshold", [0.6, 0.7])
def test_an_overlap_of_the_threshold_is_kept_as_by_torchvision(threshold):
    """0.6 as a float32 is above 0.6, and 0.7 is below: boxes that share exactly this much decide otherwise."""
    part = int(10 * threshold)
    boxes = torch.tensor([[[0.0, 0, 10, 1], [0, 0, part, 1], [0, 0, 7, 2], [0, 0, 7, 3]]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert torch.equal(sorted_nms(boxes, valid, threshold), expected(boxes, valid, threshold))


@pytest.mark.parametrize(
    ("boxes", "valid"),
    [((2, 5, 4), torch.ones(2, 6).bool()), ((5, 4), torch.ones(5).bool()), ((2, 5, 4), torch.ones(2, 5))],
)
def test_other_shapes_and_types_raise(boxes, valid):
    with pytest.raises(ValueError, match=r"expected \(P, B, 4\) and \(P, B\) of bool"):
        sorted_nms(torch.zeros(boxes), valid, 0.5)


def test_many_boxes():
    """More than a vector, with views that are not contiguous."""
    boxes, valid = lists(1, 6, 700, 40)
    boxes, valid = boxes[::2, 3:], valid[::2, 3:]
    assert torch.equal(sorted_nms(boxes, valid, 0.5), expected(boxes, valid, 0.5))


def test_lists_of_equal_and_empty_boxes():
    equal = torch.tensor([[0.0, 0, 9, 9]]).expand(1, 5, 4)
    assert sorted_nms(equal, torch.tensor([[False, True, True, True, False]]), 0.5).tolist() == [
        [False, True, False, False, False]
    ]
    empty = torch.tensor([[3.0, 3, 3, 3]]).expand(1, 3, 4)  # the union of two is nothing, and their share no number
    assert sorted_nms(empty, torch.ones(1, 3, dtype=torch.bool), 0.5).all()
