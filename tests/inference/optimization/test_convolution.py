"""Fused convolutions: equal to the convolution, norm, sum and ReLU that they replace, by every kernel."""

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn import functional as F

from maskrcnn_ext.inference.optimization.convolution import (
    ACTIVATIONS,
    FusedConv2d,
    FusedUpsampling,
    fold_norm,
    is_fusible_conv,
    is_fusible_upsampling,
    is_group_norm_conv,
)
from maskrcnn_ext.ops.workspace import Workspace

# GEMM, Winograd, and others, which oneDNN or PyTorch computes.
CONVS = {
    "1 x 1": {"kernel_size": 1},
    "1 x 1, stride 2": {"kernel_size": 1, "stride": 2},
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "3 x 3, stride 2": {"kernel_size": 3, "padding": 1, "stride": 2},
    "3 x 3, dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "3 x 3, groups": {"kernel_size": 3, "padding": 1, "groups": 4},
    "7 x 7": {"kernel_size": 7, "padding": 3, "stride": 2},
}


def random_norm(norm):
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    return norm


def random_conv(norm=None, activation=None, **arguments):
    torch.manual_seed(0)
    return Conv2d(32, 32, bias=norm is None, norm=norm, activation=activation, **arguments).eval()


def fuse(conv, **arguments):
    return FusedConv2d(conv, dtype=torch.float32, workspace=Workspace(), **arguments)


@pytest.mark.parametrize("name", CONVS)
@torch.no_grad()
def test_every_kernel_equals_convolution_norm_and_activation(name):
    conv = random_conv(random_norm(FrozenBatchNorm2d(32)), F.relu, **CONVS[name])
    x = torch.randn(2, 32, 18, 22)
    torch.testing.assert_close(fuse(conv)(x), conv(x), atol=2e-4, rtol=1e-4)
    assert fuse(conv)(x[:0]).shape == conv(x[:0]).shape


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["1 x 1", "3 x 3", "3 x 3, groups"])
@torch.no_grad()
def test_activations(name, activation):
    conv = random_conv(activation=activation(), **CONVS[name])
    x = 5 * torch.randn(2, 32, 18, 22)
    torch.testing.assert_close(fuse(conv)(x), conv(x), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", ["1 x 1", "3 x 3", "3 x 3, groups"])
@torch.no_grad()
def test_residual_sums(name):
    conv = random_conv(**CONVS[name])
    x, residual = torch.randn(2, 2, 32, 18, 22)
    expected = conv(x) + residual
    torch.testing.assert_close(fuse(conv).add(x, residual, relu=False), expected, atol=2e-4, rtol=1e-4)
    overwritten = fuse(conv).add(x, residual.clone(), relu=True, overwrite=True)
    torch.testing.assert_close(overwritten, expected.relu(), atol=2e-4, rtol=1e-4)
    half = torch.randn(2, 32, 9, 11)
    expected = conv(x) + F.interpolate(half, scale_factor=2.0)
    torch.testing.assert_close(fuse(conv).add_upsampled(x, half), expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_a_plain_gemm_is_a_matrix():
    conv = random_conv(kernel_size=1)
    weight, bias = fuse(conv).as_matrix()
    x = torch.randn(1, 32, 5, 7)
    product = x.permute(0, 2, 3, 1) @ weight + bias
    torch.testing.assert_close(product.permute(0, 3, 1, 2), conv(x), atol=1e-5, rtol=1e-5)
    assert fuse(conv, relu=True).as_matrix() is None
    assert fuse(random_conv(kernel_size=3)).as_matrix() is None


@torch.no_grad()
def test_folded_weights_and_bias_equal_batch_norm():
    conv = random_conv(random_norm(nn.BatchNorm2d(32)), kernel_size=3)
    weight, bias = fold_norm(conv)
    x = torch.randn(1, 32, 6, 6)
    torch.testing.assert_close(F.conv2d(x.double(), weight, bias).float(), conv(x), atol=1e-4, rtol=1e-4)


def test_other_convolutions_are_refused():
    for conv in (
        random_conv(nn.GroupNorm(4, 32), kernel_size=1),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding_mode="reflect"),
    ):
        assert not is_fusible_conv(conv)
        with pytest.raises(ValueError, match="cannot be fused"):
            fuse(conv)
    assert not is_fusible_conv(nn.Linear(3, 4))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("relu", [False, True])
@torch.no_grad()
def test_upsampling_equals_the_transposed_convolution(dtype, error, relu):
    torch.manual_seed(0)
    deconv = nn.ConvTranspose2d(32, 16, 2, stride=2)
    if not is_fusible_upsampling(deconv):
        pytest.skip("the compiled kernels are missing")
    x = torch.randn(3, 32, 5, 7)
    fused = FusedUpsampling(deconv, dtype=dtype, workspace=Workspace())
    fused.relu = relu
    expected = deconv(x).relu() if relu else deconv(x)
    torch.testing.assert_close(fused(x), expected.to(dtype), atol=error, rtol=error)
    weight, bias = torch.randn(3, 16), torch.randn(3)
    expected = torch.einsum("nchw,nc->nhw", expected, weight)[:, None] + bias[:, None, None, None]
    torch.testing.assert_close(fused(x, (weight, bias)), expected, atol=10 * error, rtol=10 * error)
    assert not is_fusible_upsampling(nn.ConvTranspose2d(32, 16, 3, stride=2))


@pytest.mark.parametrize(
    "side", [8, 14]
)  # Winograd's algorithm, and, as 14 is no multiple of its tiles, a direct convolution
@torch.no_grad()
def test_wide_convolutions_in_bf16(side):
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 256, 3, padding=1)
    x, residual = (torch.randn(1, 256, side, side).bfloat16() for _ in range(2))
    fused = FusedConv2d(conv, dtype=torch.bfloat16, workspace=Workspace())
    expected = conv(x.float()) + residual.float()
    for relu in (False, True):
        found = fused.add(x, residual, relu=relu)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected.relu() if relu else expected, atol=0.02, rtol=0.01)


def test_group_norms_that_are_fused():
    conv = random_conv(nn.GroupNorm(4, 32), F.relu, kernel_size=1)
    assert is_group_norm_conv(conv)
    for other in (
        random_conv(nn.GroupNorm(4, 32), nn.SiLU(), kernel_size=1),
        random_conv(nn.GroupNorm(4, 32, affine=False), kernel_size=1),
        random_conv(nn.GroupNorm(4, 32), kernel_size=3, padding="same"),
        random_conv(FrozenBatchNorm2d(32), kernel_size=1),
    ):
        assert not is_group_norm_conv(other)
