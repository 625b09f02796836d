"""Group normalisation, in place and with its gradients, against PyTorch's in float64."""

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_ext.ops import group_norm
from maskrcnn_ext.ops.group_norm import group_norm as differentiable
from maskrcnn_ext.ops.group_norm import group_norm_


@pytest.fixture(autouse=True)
def compiled():
    try:
        group_norm.library()
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("number", "channels", "groups", "height", "width"),
    [(1, 64, 32, 40, 31), (5, 48, 4, 14, 14), (2, 6, 6, 1, 1), (1, 12, 1, 30, 50), (0, 8, 2, 4, 4)],
)
def test_it_equals_group_norm(number, channels, groups, height, width, relu, dtype, tolerance):
    torch.manual_seed(0)
    # A mean far from 0 would cancel in a variance from the sum of squares.
    x = (torch.randn(number, channels, height, width) + 30).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(channels), torch.randn(channels)
    expected = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5)
    found = group_norm_(x, groups, weight, bias, 1e-5, relu=relu)
    assert found is x
    torch.testing.assert_close(found.double(), expected.relu() if relu else expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("number", "channels", "groups", "height", "width"),
    [(1, 64, 32, 40, 31), (5, 48, 4, 14, 14), (2, 6, 6, 1, 1), (1, 12, 1, 30, 50), (0, 8, 2, 4, 4)],
)
def test_its_gradients_equal_those_of_group_norm(number, channels, groups, height, width, threads, dtype, tolerance):
    torch.manual_seed(0)
    x, gradient = (
        torch.randn(number, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    found = [
        (3 * x + 2).detach().requires_grad_(),
        torch.randn(channels).requires_grad_(),
        torch.randn(channels).requires_grad_(),
    ]
    expected = [leaf.detach().double().requires_grad_() for leaf in found]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        y = differentiable(found[0], groups, *found[1:], 1e-5)
        y.backward(gradient)
    finally:
        torch.set_num_threads(before)
    reference = F.group_norm(expected[0], groups, *expected[1:], 1e-5)
    reference.backward(gradient.double())
    assert y.is_contiguous(memory_format=torch.channels_last)
    for one, other in [(y, reference), *((leaf.grad, same.grad) for leaf, same in zip(found, expected, strict=True))]:
        scale = max(1.0, other.detach().abs().max().item() if other.numel() else 1.0)
        torch.testing.assert_close(one.double(), other, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_the_result(threads):
    torch.manual_seed(0)
    x = torch.randn(2, 64, 25, 25).contiguous(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = group_norm_(x.clone(), 32, torch.ones(64), torch.zeros(64), 1e-5)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, F.group_norm(x, 32), atol=1e-5, rtol=1e-5)


def test_wrong_tensors_are_refused():
    x = torch.zeros(1, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    one = torch.ones(6)
    for given in (
        (x.half(), 2, one, one),
        (torch.zeros(1, 6, 4, 4), 2, one, one),
        (x, 4, one, one),
        (x, 2, one[:3], one),
        (x, 2, one, one.double()),
    ):
        for function in (group_norm_, differentiable):
            with pytest.raises(ValueError, match=r"the input must be|do not fit"):
                function(*given, 1e-5)
