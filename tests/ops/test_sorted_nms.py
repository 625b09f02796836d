"""Suppression of sorted boxes against torchvision's nms."""

import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.ops.sorted_nms import sorted_nms


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


def test_lists_of_equal_and_empty_boxes():
    equal = torch.tensor([[0.0, 0, 9, 9]]).expand(1, 5, 4)
    assert sorted_nms(equal, torch.tensor([[False, True, True, True, False]]), 0.5).tolist() == [
        [False, True, False, False, False]
    ]
    empty = torch.tensor([[3.0, 3, 3, 3]]).expand(1, 3, 4)  # the union of two is nothing, and their share no number
    assert sorted_nms(empty, torch.ones(1, 3, dtype=torch.bool), 0.5).all()
