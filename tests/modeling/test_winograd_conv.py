"""Winograd's algorithm in Detectron2's convolutions: the same numbers and names, and only where it applies."""

import pytest
import torch
from detectron2.layers import Conv2d, get_norm
from torch import nn

from maskrcnn_ext.modeling.winograd_conv import WinogradConv2d, use_winograd
from maskrcnn_ext.ops import winograd
from maskrcnn_ext.ops.native import loads

pytestmark = pytest.mark.skipif(not loads(winograd.library), reason="no compiled library")


def test_suitable_convolutions_compute_the_same():
    torch.manual_seed(0)
    suitable = Conv2d(64, 64, 3, padding=1, norm=get_norm("BN", 64), activation=nn.ReLU())
    model = nn.Sequential(
        suitable, Conv2d(64, 64, 3, stride=2, padding=1), Conv2d(64, 8, 3, padding=1), nn.Conv2d(8, 8, 3)
    )
    x = torch.randn(2, 64, 20, 21)
    expected, names = model(x), list(model.state_dict())
    assert use_winograd(model) == 1
    assert [type(layer) for layer in model] == [WinogradConv2d, Conv2d, Conv2d, nn.Conv2d]
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), expected, atol=1e-4, rtol=1e-4)
    assert suitable.double()(x.double()).dtype == torch.float64
