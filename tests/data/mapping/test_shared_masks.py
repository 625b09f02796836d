"""SharedBitMasks behaves as Detectron2's BitMasks does."""

import copy
import pickle

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from maskrcnn_ext.data.mapping.shared_masks import SharedBitMasks

INDEX = torch.tensor([2, 0, 2, 2, 3, 1, 0])


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(4, 30, 40, generator=generator) > 0.4
    masks[3] = False
    return masks


def assert_same(ours, stock):
    assert isinstance(ours, SharedBitMasks)
    assert len(ours) == len(stock.tensor)
    assert ours.image_size == stock.image_size
    assert torch.equal(ours.tensor, stock.tensor)
    assert torch.equal(ours.nonempty(), stock.nonempty())
    assert torch.equal(ours.get_bounding_boxes().tensor, stock.get_bounding_boxes().tensor)
    assert all(torch.equal(a, b) for a, b in zip(ours, stock, strict=True))
    corners = torch.rand(len(ours), 2, generator=torch.Generator().manual_seed(1)) * 20
    boxes = torch.cat([corners, corners + torch.tensor([15.5, 9.2])], dim=1)
    assert torch.equal(ours.crop_and_resize(boxes, 14), stock.crop_and_resize(boxes, 14))


@pytest.mark.parametrize(
    "items",
    [
        [],
        [INDEX],
        [INDEX, torch.tensor([6, 0, 0])],
        [INDEX, torch.tensor([True, False, True, True, False, False, True])],
        [torch.tensor([True, False, True, False]), torch.tensor([1, 0, 1])],
        [INDEX, slice(1, 4)],
        [slice(1, None, 2), torch.tensor([1, 1])],
        [INDEX, 3],
        [-1],
        [INDEX, torch.zeros(0, dtype=torch.int64)],
        [torch.zeros(4, dtype=torch.bool), torch.zeros(0, dtype=torch.int64)],
    ],
    ids=repr,
)
def test_indexing_of_indexed_masks_is_that_of_bit_masks(masks, items):
    ours, stock = SharedBitMasks(masks), BitMasks(masks)
    for item in items:
        ours, stock = ours[item], stock[item]
    assert_same(ours, stock)
    assert_same(ours.to("cpu"), stock)
    assert_same(pickle.loads(pickle.dumps(ours)), stock)
    assert_same(copy.deepcopy(ours), stock)


def test_picking_stores_no_mask_twice(masks):
    shared = SharedBitMasks(masks)
    assert shared[INDEX][INDEX[:2]]._stored is shared._stored


def test_as_a_field_of_instances(masks):
    of_kinds = []
    for kind in (SharedBitMasks, BitMasks):
        truth = Instances((30, 40), gt_boxes=Boxes(torch.rand(4, 4)), gt_masks=kind(masks))
        both = Instances.cat([truth[INDEX], truth[torch.tensor([True, True, False, False])]])
        of_kinds.append(both.gt_masks)
    assert_same(*of_kinds)


@pytest.mark.parametrize("item", [7, -8])
def test_a_missing_mask(masks, item):
    with pytest.raises(IndexError):
        SharedBitMasks(masks)[INDEX][item]


def test_as_many_boxes_as_masks(masks):
    with pytest.raises(AssertionError, match="3 != 4"):
        SharedBitMasks(masks).crop_and_resize(torch.rand(3, 4), 7)
