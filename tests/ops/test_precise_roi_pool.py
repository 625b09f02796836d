"""Precise RoI pooling against integrals, and its gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.ops.precise_roi_pool import precise_roi_pool

HEIGHT, WIDTH = 6, 8


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64)


def integrate(plane, x0, y0, x1, y1, steps=1000):
    """The mean of the interpolated plane, by the midpoint rule; zeros around the plane fade it out within a pixel."""
    y = y0 + (y1 - y0) * (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    x = x0 + (x1 - x0) * (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    hats_y = (1 - (y[:, None] - torch.arange(plane.shape[-2])).abs()).clamp(min=0)
    hats_x = (1 - (x[:, None] - torch.arange(plane.shape[-1])).abs()).clamp(min=0)
    return (hats_y @ plane @ hats_x.T).mean((-2, -1))


def brute_force(features, rois, bins_y, bins_x, scale, shift):
    pooled = torch.zeros(len(rois), features.shape[1], bins_y, bins_x, dtype=torch.float64)
    for index, (image, *corners) in enumerate(rois.double()):
        x0, y0, x1, y1 = (corner * scale - shift for corner in corners)
        step_x, step_y = (x1 - x0) / bins_x, (y1 - y0) / bins_y
        for i in range(bins_y):
            for j in range(bins_x):
                x, y = x0 + j * step_x, y0 + i * step_y
                pooled[index, :, i, j] = integrate(features[int(image)].double(), x, y, x + step_x, y + step_y)
    return pooled


ROIS = torch.tensor(
    [
        [0, 3.0, 2.0, 20.0, 17.0],  # several pixels a bin; edges on centres of pixels with scale 1/4
        [1, 9.3, 7.1, 11.2, 9.9],  # much less than a pixel a bin
        [1, -13.0, -9.0, 6.0, 40.0],  # beyond three edges
        [0, 100.0, 0.0, 140.0, 20.0],  # outside
    ]
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_integral_of_the_interpolated_map(features, aligned, dtype):
    expected = brute_force(features, ROIS, 2, 3, 0.25, 0.5 * aligned)
    pooled = precise_roi_pool(features.to(dtype), ROIS.to(dtype), (2, 3), 0.25, aligned=aligned)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.double(), expected, atol=1e-5, rtol=0)
    assert not pooled[3].any()


def test_single_precision_is_exact_far_from_the_origin():
    torch.manual_seed(0)
    features = torch.randn(1, 2, 4, 1000)
    rois = torch.tensor([[0, 3900.1, 3.0, 3960.3, 9.0], [0, 3990.7, 1.0, 3991.3, 2.0]])
    exact = precise_roi_pool(features.double(), rois.double(), (2, 14), 0.25, aligned=True)
    torch.testing.assert_close(
        precise_roi_pool(features, rois, (2, 14), 0.25, aligned=True).double(), exact, atol=1e-5, rtol=0
    )


def test_gradients_reach_features_and_boxes(features):
    features.requires_grad_()
    rois = ROIS[:3].double().requires_grad_()

    def pool(features, corners):
        return precise_roi_pool(features, torch.cat([rois.detach()[:, :1], corners], dim=1), (2, 3), 0.25, aligned=True)

    assert torch.autograd.gradcheck(pool, (features, rois.detach()[:, 1:].requires_grad_()))


@settings(max_examples=40, deadline=None)
@given(
    x0=st.floats(-40, 60),
    y0=st.floats(-40, 60),
    width=st.floats(0, 50),
    height=st.floats(0, 50),
    cut=st.integers(1, 3),
)
def test_a_bin_is_the_mean_of_its_parts(x0, y0, width, height, cut):
    torch.manual_seed(0)
    features = torch.randn(1, 2, HEIGHT, WIDTH, dtype=torch.float64)
    roi = torch.tensor([[0, x0, y0, x0 + width, y0 + height]], dtype=torch.float64)
    whole = precise_roi_pool(features, roi, (1, 1), 0.25, aligned=True)
    parts = precise_roi_pool(features, roi, (cut, cut), 0.25, aligned=True)
    # Bins so narrow that they fade are not means.
    if min(width, height) * 0.25 / cut > 1e-3 or cut == 1:
        torch.testing.assert_close(parts.mean((2, 3), keepdim=True), whole, atol=1e-9, rtol=1e-9)
    assert whole.abs().max() <= features.abs().max()


@pytest.mark.parametrize("size", [(0, 0), (0, 8), (8, 0), (-8, -8), (-6, -6), (1e-9, 1e-9), (1e-30, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_boxes_have_finite_gradients(features, size, dtype):
    features = features.to(dtype).requires_grad_()
    rois = torch.tensor([[0, 10, 10, 10 + size[0], 10 + size[1]]], dtype=dtype, requires_grad=True)
    pooled = precise_roi_pool(features, rois, (2, 2), 0.25, aligned=True)
    pooled.sum().backward()
    assert pooled.abs().max() < 1e-3  # no area, or next to none
    assert features.grad.isfinite().all()
    assert rois.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(features, dtype):
    half = features.to(dtype)
    pooled = precise_roi_pool(half, ROIS, (2, 3), 0.25, aligned=True)
    assert torch.equal(pooled, precise_roi_pool(half.float(), ROIS, (2, 3), 0.25, aligned=True).to(dtype))


def test_boxes_that_are_not_numbers_read_nothing_outside_the_map(features):
    for value in (float("nan"), float("inf"), -float("inf"), 1e30):
        rois = torch.tensor([[0, value, value, value, value], [1, 0, 0, value, value]], dtype=torch.float64)
        assert precise_roi_pool(features, rois, (2, 2), 0.25, aligned=True).shape == (2, 3, 2, 2)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(features):
    for rois in (ROIS.double(), ROIS.double()[:0], ROIS.double()[3:]):
        grads = []
        for device in ("cpu", "cuda"):
            inputs = [tensor.to(device).detach().requires_grad_() for tensor in (features, rois)]
            pooled = precise_roi_pool(*inputs, (2, 3), 0.25, aligned=True)
            pooled.square().sum().backward()
            grads.append([tensor.cpu() for tensor in (pooled, inputs[0].grad, inputs[1].grad)])
        torch.testing.assert_close(*grads)
