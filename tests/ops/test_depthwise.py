"""The gradients of depthwise convolutions against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_ext.ops import depthwise
from maskrcnn_ext.ops.depthwise import depthwise_conv2d, fits
from maskrcnn_ext.ops.native import loads

pytestmark = pytest.mark.skipif(not loads(depthwise.library), reason="no compiled library")

# Number, channels, height, width, kernel, stride, padding. Widths around the 8 pixels and the 32 columns that are computed at once.
CASES = [
    (2, 32, 9, 40, 3, 2, (1, 1)),
    (1, 16, 8, 37, 5, 1, (2, 2)),
    (2, 16, 11, 18, 5, 2, (2, 2)),
    (1, 16, 13, 17, 5, 2, (0, 0)),
    (1, 48, 7, 71, 7, 1, (3, 3)),
    (1, 16, 1, 1, 5, 1, (2, 2)),
    (1, 16, 2, 3, 7, 2, (3, 2)),
    (1, 16, 8, 3, 3, 1, (4, 5)),
    (0, 16, 8, 8, 5, 1, (2, 2)),
]


def channels_last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("number", "channels", "height", "width", "kernel", "stride", "padding"), CASES)
def test_gradients_equal_those_of_pytorch(number, channels, height, width, kernel, stride, padding, dtype):
    torch.manual_seed(0)
    given = [
        channels_last(number, channels, height, width).to(dtype).requires_grad_(),
        torch.randn(channels, 1, kernel, kernel).to(dtype).requires_grad_(),
        torch.randn(channels).to(dtype).requires_grad_(),
    ]
    found = depthwise_conv2d(*given, stride, padding)
    direction = channels_last(*found.shape).to(dtype)
    exact = [value.detach().double().requires_grad_() for value in given]
    expected = F.conv2d(*exact, stride, padding, groups=channels)
    tolerance = 1e-5 if dtype == torch.float32 else 8e-3
    assert found.dtype == dtype
    for one, other in zip(
        torch.autograd.grad(found, given, direction),
        torch.autograd.grad(expected, exact, direction.double()),
        strict=True,
    ):
        assert (one.dtype, one.shape) == (dtype, other.shape)
        scale = max(1, float(other.abs().max()) if other.numel() else 1)
        torch.testing.assert_close(one.double(), other, atol=tolerance * scale, rtol=0)


def test_the_sums_of_several_threads_are_those_of_one():
    torch.manual_seed(0)
    x, weight = channels_last(2, 16, 10, 12), torch.randn(16, 1, 5, 5, requires_grad=True)
    gradients, threads = [], torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            gradients += torch.autograd.grad(depthwise_conv2d(x, weight, None, 1, (2, 2)).square().sum(), weight)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*gradients)


def test_other_shapes_are_left_to_pytorch():
    assert fits(torch.empty(16, 1, 5, 5), 16, 1)
    assert fits(torch.empty(16, 1, 3, 3), 16, 2)
    assert not fits(torch.empty(16, 1, 3, 3), 16, 1)
    assert not fits(torch.empty(24, 1, 5, 5), 24, 1)
    assert not fits(torch.empty(16, 2, 5, 5), 8, 1)
    assert not fits(torch.empty(16, 1, 5, 3), 16, 1)
