"""MMDetection's box transform."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_ext.modeling.mmdet_parts import SymmetricBox2BoxTransform
from tests.helpers.mmdet_reference import decode


def test_boxes_neither_grow_nor_shrink_beyond_the_limit():
    boxes = torch.tensor([[0.0, 0.0, 100.0, 200.0], [300.0, 300.0, 400.0, 500.0]])
    deltas = torch.tensor([[0.1, -0.2, -50.0, 3.0], [0.0, 0.3, 2.0, -50.0]]).repeat(1, 2)
    found = SymmetricBox2BoxTransform((10.0, 10.0, 5.0, 5.0)).apply_deltas(deltas, boxes)
    expected = decode(boxes, deltas[:, :4], (0.1, 0.1, 0.2, 0.2), (1e4, 1e4))
    assert ((found[:, 2:4] - found[:, :2]) / (boxes[:, 2:] - boxes[:, :2])).min() == pytest.approx(16 / 1000, rel=1e-4)
    torch.testing.assert_close(found.clamp(min=0), expected.repeat(1, 2))
