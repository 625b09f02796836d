"""Winograd's convolution against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_ext.ops import winograd
from maskrcnn_ext.ops.winograd import fills_tiles, fits, transform_weight, winograd_conv2d, winograd_convolution
from maskrcnn_ext.ops.workspace import Workspace


@pytest.fixture(autouse=True)
def compiled():
    try:
        winograd.library()
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("number", "inputs", "outputs", "height", "width"),
    [
        (1, 16, 32, 8, 12),
        (2, 32, 16, 7, 9),
        (1, 16, 16, 1, 1),
        (3, 48, 16, 5, 2),
        (1, 16, 16, 100, 97),
        (0, 16, 16, 4, 4),
    ],
)
def test_it_equals_the_convolution(number, inputs, outputs, height, width, relu):
    torch.manual_seed(0)
    x = torch.randn(number, inputs, height, width).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(outputs, inputs, 3, 3) / inputs**0.5, torch.randn(outputs)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    residual = torch.randn(expected.shape).contiguous(memory_format=torch.channels_last)
    for added in (None, residual):
        found = winograd_conv2d(x, transform_weight(weight), bias, Workspace(), relu=relu, residual=added)
        wanted = expected if added is None else expected + residual.double()
        torch.testing.assert_close(found.double(), wanted.relu() if relu else wanted, atol=2e-4, rtol=0)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("relu", [False, True])
@torch.no_grad()
def test_bf16_is_rounded_once(relu):
    torch.manual_seed(0)
    x, residual = (torch.randn(2, 32, 9, 14).bfloat16().contiguous(memory_format=torch.channels_last) for _ in range(2))
    weight, bias = torch.randn(32, 32, 3, 3) / 32**0.5, torch.randn(32)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1) + residual.double()
    found = winograd_conv2d(x, transform_weight(weight), bias, Workspace(), relu=relu, residual=residual)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact.relu() if relu else exact, atol=2e-4, rtol=2**-8)
    x[0, 3, 4, 5] = torch.nan
    found = winograd_conv2d(x, transform_weight(weight), bias, Workspace(), relu=relu, residual=residual)
    assert found[0, :, 4, 5].isnan().all()


SHAPES = [(1, 16, 32, 8, 12), (2, 32, 16, 7, 9), (1, 16, 16, 1, 1), (3, 16, 16, 40, 97), (0, 16, 16, 4, 4)]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("number", "inputs", "outputs", "height", "width"), SHAPES)
def test_gradients_equal_those_of_the_convolution(number, inputs, outputs, height, width, with_bias):
    torch.manual_seed(0)
    x = torch.randn(number, inputs, height, width, requires_grad=True)
    weight = (torch.randn(outputs, inputs, 3, 3) / inputs**0.5).requires_grad_()
    bias = torch.randn(outputs, requires_grad=True) if with_bias else None
    given = [x, weight, *([bias] if with_bias else [])]
    found = winograd_convolution(x, weight, bias, Workspace())
    direction = torch.randn(found.shape)
    gradients = torch.autograd.grad(found, given, direction)
    exact = [value.detach().double().requires_grad_() for value in given]
    expected = F.conv2d(*exact[:2], exact[2] if with_bias else None, padding=1)
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=0)
    for one, other in zip(gradients, torch.autograd.grad(expected, exact, direction.double()), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(
            one.double(), other, atol=1e-4 * max(1, float(other.abs().max()) if other.numel() else 1), rtol=0
        )


def test_only_required_gradients_are_computed():
    weight = torch.randn(16, 16, 3, 3, requires_grad=True)
    winograd_convolution(torch.randn(1, 16, 8, 8), weight, None, Workspace()).sum().backward()
    assert weight.grad is not None
    x = torch.randn(1, 16, 8, 8, requires_grad=True)
    winograd_convolution(x, weight.detach(), None, Workspace()).sum().backward()
    assert x.grad is not None


def test_a_used_workspace_does_not_change_results():
    torch.manual_seed(0)
    workspace = Workspace()
    weight = transform_weight(torch.randn(16, 16, 3, 3))
    images = [torch.randn(1, 16, side, side).contiguous(memory_format=torch.channels_last) for side in (9, 40, 9)]
    alone = [winograd_conv2d(x, weight, torch.zeros(16), Workspace()) for x in images]
    shared = [winograd_conv2d(x, weight, torch.zeros(16), workspace) for x in images]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one, other)


def test_convolutions_that_benefit():
    assert fits(torch.empty(256, 128, 3, 3))
    for shape in ((256, 128, 1, 1), (256, 48, 3, 3), (250, 256, 3, 3), (256, 256, 5, 5), (512, 512, 3, 3)):
        assert not fits(torch.empty(shape))
    assert fits(torch.empty(256, 256, 3, 3, dtype=torch.bfloat16))
    assert not fits(torch.empty(256, 128, 3, 3, dtype=torch.bfloat16))


def test_maps_that_fill_their_tiles():
    for height, width, fills in ((200, 304, True), (50, 76, True), (14, 14, False), (1, 400, False)):
        assert fills_tiles(torch.empty(1, 1, height, width)) is fills
