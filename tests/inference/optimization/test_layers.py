"""Which fused layer replaces a layer, and its dtype."""

import torch
from torch import nn

from maskrcnn_ext.inference.optimization.layers import CastInput, FusedLayers
from maskrcnn_ext.ops.workspace import Workspace


def test_last_layers_stay_in_float32():
    layers = FusedLayers(torch.bfloat16, Workspace())
    assert layers.conv(nn.Conv2d(8, 8, 1)).dtype == torch.bfloat16
    assert layers.conv(nn.Conv2d(8, 8, 1), "objectness_logits").dtype == torch.float32
    assert layers.layer(nn.Linear(8, 8), "fc1").dtype == torch.bfloat16
    assert layers.layer(nn.Linear(8, 8), "cls_score").dtype == torch.float32


@torch.no_grad()
def test_linear_layers_cast_their_input_unless_all_is_float32():
    layer, x = nn.Linear(8, 4), torch.randn(3, 8)
    expected = layer(x)
    assert FusedLayers(torch.float32, Workspace()).layer(layer, "fc1") is None
    cast = FusedLayers(torch.bfloat16, Workspace()).layer(layer, "fc1")
    assert isinstance(cast, CastInput)
    assert cast(x).dtype == torch.bfloat16
    torch.testing.assert_close(cast(x).float(), expected, atol=0.03, rtol=0.03)


def test_other_layers_are_kept():
    assert FusedLayers(torch.bfloat16, Workspace()).layer(nn.LayerNorm(4), "norm") is None
