"""Layers of the mask heads, and RoIAlign on a pyramid."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from maskrcnn_ext.modeling.mask_heads.layers import (
    conv,
    conv_stack,
    deconv,
    fc_stack,
    predictor,
    roi_align,
    roi_align_finest,
)

STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize("norm", ["", "BN", "GN"])
def test_layers_have_the_documented_sizes(norm):
    x = torch.rand(2, 3, 8, 8)
    assert conv(3, 4, norm=norm)(x).shape == (2, 4, 8, 8)
    assert conv(3, 4, kernel_size=1, stride=2, norm=norm)(x).shape == (2, 4, 4, 4)
    assert conv_stack(3, [4, 5], norm=norm)(x).shape == (2, 5, 8, 8)
    assert conv_stack(3, [])(x) is x
    assert deconv(3, 4)(x).shape == (2, 4, 16, 16)
    assert fc_stack(3 * 64, [6, 7])(x.flatten(1)).shape == (2, 7)


def test_logits_are_near_zero_at_first():
    assert predictor(16, 3)(torch.rand(2, 16, 8, 8)).abs().max() < 0.1


def test_roi_align_is_the_stock_pooler_and_its_finest_level():
    torch.manual_seed(0)
    features = {f"p{level}": torch.rand(1, 4, 512 >> level, 512 >> level) for level in (2, 3, 4, 5)}
    boxes = [Boxes(torch.tensor([[3.0, 5, 20, 30], [10, 10, 400, 500]]))]
    levels = list(features.values())
    stock = ROIPooler(7, [1 / stride for stride in STRIDES], sampling_ratio=0, pooler_type="ROIAlignV2")
    assert torch.equal(roi_align(features, STRIDES, boxes, 7), stock(levels, boxes))
    finest = ROIPooler(7, [1 / 4], sampling_ratio=0, pooler_type="ROIAlignV2")
    assert torch.equal(roi_align_finest(features, STRIDES, boxes, 7), finest(levels[:1], boxes))
