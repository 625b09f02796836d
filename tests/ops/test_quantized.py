"""Quantization and int8 layers: equal to references in float64 of the same integers."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from maskrcnn_ext.ops import quantized
from maskrcnn_ext.ops.quantized import (
    ConvSizes,
    QuantizedMap,
    Scale,
    is_supported,
    pack_conv_weight,
    pack_linear_weight,
    quantize,
    quantize_weight,
    quantized_conv2d,
    quantized_linear,
    rounding_shift,
    scale_of_range,
)

needs_int8 = pytest.mark.skipif(not is_supported(), reason="this CPU or torch has no int8 kernels")
CONVS = {
    "1 x 1": (1, ConvSizes([1, 1], [0, 0], [1, 1], 1)),
    "1 x 1, stride 2": (1, ConvSizes([2, 2], [0, 0], [1, 1], 1)),
    "3 x 3": (3, ConvSizes([1, 1], [1, 1], [1, 1], 1)),
    "3 x 3, stride 2": (3, ConvSizes([2, 2], [1, 1], [1, 1], 1)),
    "3 x 3, dilated": (3, ConvSizes([1, 1], [2, 2], [2, 2], 1)),
    "depthwise": (5, ConvSizes([1, 1], [2, 2], [1, 1], 24)),
}
OUTPUTS = [torch.float32, torch.bfloat16, Scale(0.04, 0), Scale(0.08, 97)]


def integers(*shape, scale):
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    return QuantizedMap(values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values, scale)


def check(found, expected, output):
    """Numbers are equal up to rounding, and integers to half a step."""
    if not isinstance(output, Scale):
        assert found.dtype == output
        error = 1e-5 if output == torch.float32 else 0.01
        torch.testing.assert_close(found.double(), expected, atol=error, rtol=error)
        return
    assert found.scale == output
    low, high = (output.scale * (end - output.zero_point) for end in (0, 255))
    assert (found.dequantize(torch.float64) - expected.clamp(low, high)).abs().max() <= 0.501 * output.scale


@needs_int8
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("scale", [Scale(0.01, 0), Scale(0.02, 128)], ids=str)
@pytest.mark.parametrize("name", CONVS)
def test_a_convolution_equals_that_of_the_same_integers(name, scale, output):
    torch.manual_seed(0)
    side, sizes = CONVS[name]
    weight, bias = torch.randn(24, 24 // sizes.groups, side, side) / side, torch.randn(24)
    whole, scales = quantize_weight(weight)
    x = integers(2, 24, 9, 8, scale=scale)
    numbers = whole.double() * scales.double()[:, None, None, None]
    expected = F.conv2d(x.dequantize(torch.float64), numbers, bias.double(), *sizes)
    packed = pack_conv_weight(weight, sizes)
    check(quantized_conv2d(x, packed, bias, sizes, output), expected, output)
    relu = quantized_conv2d(x, packed, bias, sizes, output, activation=("relu", []))
    check(relu, expected.relu(), output)
    relu6 = quantized_conv2d(x, packed, bias, sizes, output, activation=("hardtanh", [0.0, 6.0]))
    check(relu6, expected.clamp(0, 6), output)
    if isinstance(output, Scale):
        residual = integers(*expected.shape, scale=Scale(0.03, 80))
        added = residual.dequantize(torch.float64)
    else:
        residual = torch.randn(expected.shape).to(output).contiguous(memory_format=torch.channels_last)
        added = residual.double()
    total = quantized_conv2d(x, packed, bias, sizes, output, activation=("relu", []), residual=residual)
    if output != torch.bfloat16:  # the sum is rounded once more
        check(total, (expected + added).relu(), output)
    else:
        torch.testing.assert_close(total.double(), (expected + added).relu(), atol=0.1, rtol=0.02)


@needs_int8
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_a_fully_connected_layer_equals_that_of_the_same_integers(output):
    torch.manual_seed(0)
    weight, bias = torch.randn(20, 70) / 8, torch.randn(20)
    whole, scales = quantize_weight(weight)
    x = integers(5, 70, scale=Scale(0.02, 31))
    expected = F.linear(x.dequantize(torch.float64), whole.double() * scales.double()[:, None], bias.double())
    packed = pack_linear_weight(weight)
    check(quantized_linear(x, packed, bias, output), expected, output)
    check(quantized_linear(x, packed, bias, output, activation=("relu", [])), expected.relu(), output)
    assert quantized_linear(QuantizedMap(x.values[:0], x.scale), packed, bias, torch.float32).shape == (0, 20)


@needs_int8
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda weight: pickle.loads(pickle.dumps(weight))])
@pytest.mark.parametrize("name", CONVS)
def test_copies_of_weights(name, duplicate):
    torch.manual_seed(0)
    side, sizes = CONVS[name]
    packed = pack_conv_weight(torch.randn(48, 24 // sizes.groups, side, side), sizes)
    x = integers(1, 24, 9, 8, scale=Scale(0.01, 3))
    one, other = (quantized_conv2d(x, w, torch.zeros(48), sizes, torch.float32) for w in (packed, duplicate(packed)))
    assert one.abs().max() > 1
    assert torch.equal(one, other)


@needs_int8
def test_weights_with_other_strides():
    torch.manual_seed(0)
    weight = torch.randn(20, 70)
    x = integers(5, 70, scale=Scale(0.02, 31))
    one, other = (
        quantized_linear(x, pack_linear_weight(value), torch.zeros(20), torch.float32)
        for value in (weight, weight.T.contiguous().T)
    )
    assert torch.equal(one, other)


@needs_int8
@pytest.mark.parametrize("name", ["1 x 1", "3 x 3"])
def test_no_images(name):
    side, sizes = CONVS[name]
    packed = pack_conv_weight(torch.randn(24, 24, side, side), sizes)
    empty = integers(0, 24, 9, 8, scale=Scale(0.01, 3))
    assert quantized_conv2d(empty, packed, torch.zeros(24), sizes, torch.float32).shape == (0, 24, 9, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [True, False])
def test_quantization_rounds_and_clamps(dtype, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(quantized, "loads", lambda _: False)
    scale = Scale(0.5, 10)
    x = torch.tensor([[-9.0, -5.0, -4.5, 0.0, 0.74, 0.76, 122.5, 123.0, 1e9, -torch.inf, torch.nan]]).to(dtype)
    assert quantize(x, scale).values.tolist() == [[0, 0, 1, 10, 11, 12, 255, 255, 255, 0, 0]]
    maps = torch.randn(2, 5, 20, 30).to(dtype)
    found = quantize(maps, Scale(0.02, 128))
    assert found.values.is_contiguous(memory_format=torch.channels_last)
    kept = maps.float().clamp(-2.56, 2.54)
    assert (found.dequantize(torch.float32) - kept).abs().max() <= 0.01 + 1e-5


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
@settings(max_examples=50, deadline=None)
def test_a_scale_covers_its_range_and_represents_zero(one, other):
    scale, zero_point = scale_of_range(min(one, other), max(one, other))
    assert 0 <= zero_point <= 255
    assert scale > 0
    ends = np.array([-zero_point, 255 - zero_point]) * scale
    assert ends[0] <= min(one, other, 0) + 0.51 * scale
    assert ends[1] >= max(one, other, 0) - 0.51 * scale


def test_padding_is_zero():
    padded = QuantizedMap(torch.full((1, 1, 2, 2), 9, dtype=torch.uint8), Scale(0.5, 7)).pad((1, 0, 1, 0))
    assert padded.shape == (1, 1, 3, 3)
    assert padded.dequantize(torch.float32)[0, 0].tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_weights_of_zeros_stay_zero():
    whole, scales = quantize_weight(torch.zeros(2, 3, 1, 1))
    assert whole.abs().sum() == 0
    assert scales.isfinite().all()


@pytest.mark.parametrize("groups", [1, 4, 24])
def test_the_shift_of_rounded_weights_is_exact_for_constant_channels(groups):
    torch.manual_seed(0)
    weight, means = torch.randn(24, 24 // groups, 3, 3).double(), torch.randn(24).double()
    maps = means[None, :, None, None].expand(1, 24, 5, 5)
    rounded, scales = quantize_weight(weight)
    exact = F.conv2d(maps, weight, groups=groups)
    found = F.conv2d(maps, rounded * scales.double().view(-1, 1, 1, 1), groups=groups)
    shift = rounding_shift(weight, means, groups).double()
    torch.testing.assert_close(found + shift.view(1, -1, 1, 1), exact, atol=1e-6, rtol=0)
    assert shift.abs().max() > 1e-3


def test_the_shift_of_a_fully_connected_layer():
    torch.manual_seed(0)
    weight, means = torch.randn(8, 20), torch.randn(20)
    rounded, scales = quantize_weight(weight)
    expected = means @ weight.T - means @ (rounded * scales[:, None]).T
    torch.testing.assert_close(rounding_shift(weight, means), expected, atol=1e-5, rtol=0)
