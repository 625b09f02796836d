"""Depthwise convolutions with a faster backward pass: the same numbers and names, and only where it applies."""

import copy
import pickle

import pytest
import torch
from torch import nn

from maskrcnn_ext.modeling.depthwise_conv import DepthwiseConv2d, use_fast_depthwise
from maskrcnn_ext.ops import depthwise
from maskrcnn_ext.ops.native import loads

pytestmark = pytest.mark.skipif(not loads(depthwise.library), reason="no compiled library")


def net():
    torch.manual_seed(0)
    layers = pytest.importorskip("timm.layers")
    return nn.Sequential(
        nn.Conv2d(16, 16, 5, padding=2, groups=16),
        layers.Conv2dSame(16, 16, 3, stride=2, groups=16),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 16, 5, padding=4, dilation=2, groups=16),
        nn.Conv2d(16, 8, 1),
    ).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("size", [(10, 12), (11, 9)])
def test_suitable_convolutions_compute_the_same(size, bf16):
    plain, faster = net(), net()
    assert use_fast_depthwise(faster) == 2
    assert [isinstance(layer, DepthwiseConv2d) for layer in faster] == [True, True, False, False, False]
    assert list(faster.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 16, *size)
    results = []
    for model in (plain, faster):
        image = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = model(image)
        out.float().square().sum().backward()
        results.append([out.detach(), image.grad, *(weight.grad for weight in model.parameters())])
    for expected, found in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        atol = (2e-2 if bf16 else 1e-5) * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, atol=atol, rtol=0)
    assert torch.equal(results[0][0], results[1][0])


def test_other_inputs_are_computed_as_before():
    model = net()
    use_fast_depthwise(model)
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(model(x), net()(x))  # channels first
    x = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.jit.trace(model, (x,))(x), net()(x))
    assert model.double()(x.double()).dtype == torch.float64


def test_models_can_be_pickled():
    model = net()
    use_fast_depthwise(model)
    x = torch.randn(1, 16, 6, 6)
    for same in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert [type(layer).__name__ for layer in same] == [type(layer).__name__ for layer in model]
        assert same[0].weight is not model[0].weight
        torch.testing.assert_close(same(x), model(x))
