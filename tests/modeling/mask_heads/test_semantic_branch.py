"""The semantic branch: its target and loss against references."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from maskrcnn_ext.modeling.mask_heads.semantic_branch import semantic_loss, semantic_target
from tests.helpers.refine_mask import SIZE


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rectangle(x0, y0, x1, y1):
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=np.float64)


@pytest.mark.parametrize("kind", ["bits", "polygons"])
def test_semantic_target_is_the_union_on_the_small_grid(kind):
    rectangles = [(0, 0, 16, 8), (8, 4, 24, 20), (32, 20, 40, 28), (0, 0, 16, 8)]  # the first object twice
    image = Instances((30, 42))
    image.proposal_boxes = Boxes(torch.zeros(4, 4))
    if kind == "bits":
        masks = torch.zeros(4, 30, 42, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, rectangles, strict=True):
            mask[y0:y1, x0:x1] = True
        image.gt_masks = BitMasks(masks)
    else:
        image.gt_masks = PolygonMasks([[rectangle(*corners)] for corners in rectangles])
    nothing = Instances((32, 48))  # images without ground truth have no gt_masks
    nothing.proposal_boxes = Boxes(torch.zeros(0, 4))
    target = semantic_target([image, nothing], 16, 16, 4)  # padded to 64 x 64
    expected = torch.zeros(2, 16, 16)
    expected[0, 0:2, 0:4] = expected[0, 1:5, 2:6] = expected[0, 5:7, 8:10] = 1
    assert torch.equal(target, expected)


def test_an_object_is_drawn_once_however_many_proposals_it_has(monkeypatch):
    from maskrcnn_ext.modeling.mask_heads import semantic_branch

    drawn = []
    draw = semantic_branch.polygons_to_bitmask
    monkeypatch.setattr(
        semantic_branch,
        "polygons_to_bitmask",
        lambda polygons, *size: drawn.append(len(polygons)) or draw(polygons, *size),
    )
    image = Instances((SIZE, SIZE))
    image.gt_masks = PolygonMasks([[rectangle(0, 0, 16, 8)], [rectangle(8, 4, 24, 20)]])[torch.tensor([0, 1, 1, 0, 1])]
    image.proposal_boxes = Boxes(torch.zeros(5, 4))
    semantic_target([image], 16, 16, 4)
    assert drawn == [2]


def test_semantic_loss_is_binary_cross_entropy():
    logits, targets = torch.randn(2, 8, 8), (torch.rand(2, 8, 8) > 0.5).float()
    probs = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = -np.where(targets.numpy() > 0, np.log(probs), np.log(1 - probs)).mean()
    assert semantic_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)
