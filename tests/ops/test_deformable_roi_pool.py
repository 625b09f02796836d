"""Deformable RoI pooling against a reference, RoIAlign and its gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from maskrcnn_ext.ops.deformable_roi_pool import deformable_roi_pool

ROIS = torch.tensor(
    [
        [0, 3.0, 2.0, 30.0, 17.0],
        [1, 9.3, 7.1, 11.2, 9.9],
        [1, -13.0, -9.0, 6.0, 40.0],
        [0, 100.0, 0.0, 140.0, 20.0],
        [0, 9.0, 9.0, 9.0, 9.0],
        [1, 9.0, 3.0, 9.0, 22.0],
        [1, 9.0, 9.0, 5.0, 3.0],
        [0, 30.0, 20.0, 2.0, 3.0],
    ]
)


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 8, dtype=torch.float64)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_without_offsets_it_is_roi_align(features, aligned, sampling_ratio, dtype, tolerance):
    features, rois = features.to(dtype).requires_grad_(), ROIS.to(dtype)
    expected = roi_align(features, rois, (2, 3), 0.25, sampling_ratio, aligned)
    offsets = torch.zeros(len(rois), 2, 2, 3, dtype=dtype)
    pooled = deformable_roi_pool(features, rois, offsets, 0.25, sampling_ratio=sampling_ratio, aligned=aligned)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, expected, atol=tolerance, rtol=0)
    weights = torch.rand_like(pooled)
    gradients = [torch.autograd.grad((output * weights).sum(), features)[0] for output in (pooled, expected)]
    torch.testing.assert_close(*gradients, atol=tolerance, rtol=tolerance)


@settings(max_examples=40, deadline=None)
@given(
    corner=st.tuples(st.floats(-20, 60), st.floats(-20, 60)),
    size=st.tuples(st.floats(0, 60), st.floats(0, 60)),
    offset=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_offsets_that_agree_move_the_box(corner, size, offset):
    """Every bin moved by the same part of the box's size is RoIAlign of the moved box."""
    torch.manual_seed(0)
    features = torch.randn(1, 2, 12, 13, dtype=torch.float64)
    corner, size, offset = (torch.tensor(pair, dtype=torch.float64) for pair in (corner, size, offset))
    roi = torch.cat([torch.zeros(1), corner, corner + size])[None]
    moved = corner + offset * size
    moved_roi = torch.cat([torch.zeros(1), moved, moved + size])[None]
    offsets = offset.reshape(1, 2, 1, 1).expand(1, 2, 3, 2)
    pooled = deformable_roi_pool(features, roi, offsets, 0.25, sampling_ratio=2, aligned=True)
    expected = roi_align(features, moved_roi, (3, 2), 0.25, 2, True)
    # At one pixel outside the map the samples jump to 0: a sample may lie on either side of that by rounding.
    samples = [
        0.25 * (moved[axis] + size[axis] * (torch.arange(2 * bins) + 0.5) / (2 * bins)) - 0.5
        for axis, bins in ((0, 2), (1, 3))
    ]
    if all(
        ((axis + 1).abs() > 1e-9).all() and ((axis - end).abs() > 1e-9).all()
        for axis, end in zip(samples, (13, 12), strict=True)
    ):
        torch.testing.assert_close(pooled, expected, atol=1e-9, rtol=0)


def test_a_bin_moves_alone_along_x_and_y(features):
    ramp = torch.arange(20.0)[:, None] * 100 + torch.arange(20.0)
    offsets = torch.zeros(1, 2, 2, 2)
    offsets[0, 0, 0, 1] = 0.25  # the upper right bin, by a quarter of 8 pixels
    offsets[0, 1, 1, 0] = -0.5  # the lower left bin, by half of 4 pixels
    rois = torch.tensor([[0, 6.0, 8.0, 14.0, 12.0]])
    moved = deformable_roi_pool(ramp[None, None], rois, offsets, 1.0, sampling_ratio=2, aligned=True)
    still = deformable_roi_pool(ramp[None, None], rois, offsets * 0, 1.0, sampling_ratio=2, aligned=True)
    torch.testing.assert_close(moved - still, torch.tensor([[[[0.0, 2.0], [-200.0, 0.0]]]]))


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradients_reach_features_and_offsets(features, sampling_ratio):
    rois = ROIS[:3].double().requires_grad_()
    offsets = (torch.randn(3, 2, 2, 3, dtype=torch.float64) / 10).requires_grad_()

    def pool(features, offsets):
        return deformable_roi_pool(features, rois, offsets, 0.25, sampling_ratio=sampling_ratio, aligned=True)

    assert torch.autograd.gradcheck(pool, (features.requires_grad_(), offsets))
    pool(features, offsets).sum().backward()
    assert offsets.grad.any()
    assert rois.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(features, dtype):
    half, offsets = features.to(dtype), torch.rand(len(ROIS), 2, 2, 3)
    options = {"sampling_ratio": 0, "aligned": True}
    pooled = deformable_roi_pool(half, ROIS, offsets, 0.25, **options)
    assert torch.equal(pooled, deformable_roi_pool(half.float(), ROIS, offsets, 0.25, **options).to(dtype))


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(features):
    for rois in (ROIS.double(), ROIS.double()[:0], ROIS.double()[4:5]):
        offsets = torch.rand(len(rois), 2, 2, 3, dtype=torch.float64) / 10
        results = []
        for device in ("cpu", "cuda"):
            inputs = [tensor.to(device).detach().requires_grad_() for tensor in (features, offsets)]
            pooled = deformable_roi_pool(inputs[0], rois.to(device), inputs[1], 0.25, sampling_ratio=0, aligned=True)
            pooled.square().sum().backward()
            results.append([tensor.cpu() for tensor in (pooled, inputs[0].grad, inputs[1].grad)])
        torch.testing.assert_close(*results)
