"""Masks as RLEs behave as Detectron2's structures do."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from pycocotools import mask as mask_util

from maskrcnn_ext.ops.rle_masks import RLEMasks

DENSE = torch.from_numpy(np.random.default_rng(0).random((5, 9, 7)) < 0.3)
DENSE[3] = False


def encode(dense):
    return [mask_util.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8)) for mask in dense]


@pytest.fixture
def masks():
    return RLEMasks(encode(DENSE), DENSE.shape[1:])


@pytest.mark.parametrize(
    "item",
    [
        slice(1, 4),
        slice(None, None, 2),
        torch.tensor([4, 0, 0]),
        torch.tensor([True, False, True, False, True]),
        torch.tensor([], dtype=torch.int64),
    ],
    ids=str,
)
def test_indexing_selects_as_on_an_array(masks, item):
    assert torch.equal(masks[item].to_dense(), DENSE[item])


@pytest.mark.parametrize("item", [2, -1, np.int64(1), torch.tensor(0), (1, 3), (2, slice(1, 4), slice(2, 5))], ids=str)
def test_an_integer_index_returns_a_mask_as_of_a_tensor(masks, item):
    assert torch.equal(masks[item], DENSE[item])


@pytest.mark.parametrize("item", [(slice(1, 3), 4), None, (slice(None), None), (slice(None), slice(1, 3))], ids=str)
def test_other_indices_are_those_of_the_tensor(masks, item):
    assert torch.equal(masks[item], DENSE[item])


@pytest.mark.parametrize("item", [[3, 1], [], np.array([True, False, False, True, False])], ids=str)
def test_lists_and_arrays_select_masks(masks, item):
    assert isinstance(masks[item], RLEMasks)
    assert torch.equal(masks[item].tensor, DENSE[np.asarray(item, bool if len(item) == 5 else int)])


def test_an_index_out_of_range_ends_a_loop(masks):
    with pytest.raises(IndexError):
        masks[5]


def test_the_conversions_of_a_tensor(masks):
    assert masks.shape == DENSE.shape
    for found in (masks.cpu().numpy(), masks.detach().to("cpu").numpy(), np.asarray(masks), masks.tensor.numpy()):
        assert found.dtype == bool
        np.testing.assert_array_equal(found, DENSE.numpy())
    assert np.asarray(masks, dtype=np.uint8).dtype == np.uint8
    for dim in (0, 1, -1):
        assert torch.equal(masks.any(dim), DENSE.any(dim))
    assert torch.equal(RLEMasks([], (4, 6)).any(0), torch.zeros(4, 6, dtype=torch.bool))
    assert RLEMasks([], (4, 6)).numpy().shape == (0, 4, 6)


def test_iteration_yields_dense_masks(masks):
    assert all(torch.equal(one, mask) for one, mask in zip(masks, DENSE, strict=True))


def test_areas_and_boxes_are_those_of_bit_masks(masks):
    assert masks.areas().tolist() == DENSE.sum(dim=(1, 2)).tolist()
    assert torch.equal(masks.boxes(), BitMasks(DENSE).get_bounding_boxes().tensor)


def test_an_rle_of_another_size_is_an_error(masks):
    with pytest.raises(ValueError, match=r"an RLE of size \[9, 7\], but its image is 9 x 8"):
        RLEMasks(masks.rles, (9, 8)).to_dense()


def test_no_masks():
    none = RLEMasks([], (4, 6))
    assert none.to_dense().shape == (0, 4, 6)
    assert none.to_dense().dtype == torch.bool
    assert none.boxes().shape == (0, 4)
    assert none.areas().shape == (0,)
    assert list(none) == []
    assert none.areas().dtype == torch.int64


def test_in_instances_they_are_selected_moved_and_joined(masks):
    found = Instances((9, 7), pred_boxes=Boxes(masks.boxes()), pred_masks=masks)
    chosen = found[torch.tensor([2, 1])].to("cpu")
    assert torch.equal(chosen.pred_masks.to_dense(), DENSE[[2, 1]])
    assert torch.equal(Instances.cat([found, chosen]).pred_masks.to_dense(), torch.cat([DENSE, DENSE[[2, 1]]]))
    with pytest.raises(ValueError, match="one size"):
        RLEMasks.cat([masks, RLEMasks([], (1, 1))])
