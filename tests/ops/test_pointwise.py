"""Convolutions as products of matrices against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_ext.ops import pointwise
from maskrcnn_ext.ops.pointwise import pointwise_conv2d, upsampling_conv2d, upsampling_weight
from maskrcnn_ext.ops.workspace import Workspace


@pytest.fixture(autouse=True)
def compiled():
    try:
        pointwise.library()
    except OSError as error:
        pytest.skip(str(error))


def image(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)


SHAPES = [
    (1, 16, 32, 8, 12),
    (2, 5, 7, 6, 4),
    (1, 3, 1, 1, 1),
    (3, 64, 130, 91, 96),  # in several pieces
    (0, 8, 8, 4, 4),
]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("number", "inputs", "outputs", "height", "width"), SHAPES)
def test_it_equals_the_convolution(number, inputs, outputs, height, width, stride, relu):
    torch.manual_seed(0)
    x, weight, bias = image(number, inputs, height, width), torch.randn(inputs, outputs), torch.randn(outputs)
    expected = F.conv2d(x.double(), weight.double().T[:, :, None, None], bias.double(), stride=stride)
    residual = image(*expected.shape)
    for added in (None, residual):
        found = pointwise_conv2d(x, weight, bias, Workspace(), stride=stride, relu=relu, residual=added)
        wanted = expected if added is None else expected + added.double()
        torch.testing.assert_close(found.double(), wanted.relu() if relu else wanted, atol=1e-4, rtol=0)
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(residual, image(*expected.shape))
    over = pointwise_conv2d(x, weight, bias, Workspace(), stride=stride, relu=relu, residual=residual, overwrite=True)
    assert over.data_ptr() == residual.data_ptr()
    torch.testing.assert_close(over, found, atol=1e-4, rtol=0)


def test_a_residual_of_half_the_size_counts_four_times():
    torch.manual_seed(0)
    x, weight, bias = image(2, 8, 50, 64), torch.randn(8, 160), torch.randn(160)
    residual = image(2, 160, 25, 32)
    found = pointwise_conv2d(x, weight, bias, Workspace(), residual=residual)
    expected = F.conv2d(x.double(), weight.double().T[:, :, None, None], bias.double())
    expected += F.interpolate(residual.double(), scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("number", "inputs", "outputs", "height", "width"), SHAPES)
def test_upsampling_is_the_transposed_convolution(number, inputs, outputs, height, width, relu):
    torch.manual_seed(0)
    x, weight, bias = image(number, inputs, height, width), torch.randn(inputs, outputs, 2, 2), torch.randn(outputs)
    found = upsampling_conv2d(x, upsampling_weight(weight), bias, Workspace(), relu=relu)
    expected = F.conv_transpose2d(x.double(), weight.double(), bias.double(), stride=2)
    torch.testing.assert_close(found.double(), expected.relu() if relu else expected, atol=1e-4, rtol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_fused_operations_after_the_upsampling(number, relu):
    torch.manual_seed(0)
    x, weight, bias = image(number, 24, 90, 96), torch.randn(24, 40, 2, 2), torch.randn(40)
    then = torch.randn(number, 40), torch.randn(number)
    found = upsampling_conv2d(x, upsampling_weight(weight), bias, Workspace(), relu=relu, then=then)
    between = F.conv_transpose2d(x.double(), weight.double(), bias.double(), stride=2)
    between = between.relu() if relu else between
    expected = torch.einsum("nchw,nc->nhw", between, then[0].double()) + then[1].double()[:, None, None]
    torch.testing.assert_close(found[:, 0].double(), expected, atol=1e-3, rtol=0)


def test_nan_propagates():
    x = image(1, 4, 2, 2)
    x[0, 0, 0, 0] = float("nan")
    found = pointwise_conv2d(x, torch.ones(4, 3), torch.zeros(3), Workspace(), relu=True)
    assert found[0, :, 0, 0].isnan().all()
    assert found.isnan().sum() == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(1, 5, 4, 4)}, "weights from 4 to 3 channels do not fit 5"),
        ({"bias": torch.zeros(2)}, r"a bias \(2,\)"),
        ({"x": torch.zeros(1, 4, 4, 4)}, "channels-last"),
        ({"bias": torch.zeros(3, dtype=torch.float64)}, "float32"),
        ({"residual": image(1, 3, 3, 4)}, "does not fit"),
        ({"x": image(1, 4, 5, 4), "residual": image(1, 3, 2, 2)}, "does not fit"),
    ],
)
def test_mismatched_arguments_raise(change, message):
    arguments = {"x": image(1, 4, 4, 4), "weight": torch.ones(4, 3), "bias": torch.zeros(3), "workspace": Workspace()}
    with pytest.raises(ValueError, match=message):
        pointwise_conv2d(**{**arguments, **change})
