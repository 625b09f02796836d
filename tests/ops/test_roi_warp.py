"""RoIWarp against its definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_pool

from maskrcnn_ext.ops.roi_warp import quantise_rois, roi_warp


def reference(features, rois, bins, scale, samples, aligned, aggregate):
    """Bilinear samples of the rounded RoI, one at a time; the RoIs here end within the map."""
    height, width = features.shape[2:]
    pooled = np.zeros((len(rois), features.shape[1], bins, bins))

    def interpolate(plane, y, x):
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = math.floor(y), math.floor(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = plane[:, top, left] * (1 - (x - left)) + plane[:, top, right] * (x - left)
        lower = plane[:, bottom, left] * (1 - (x - left)) + plane[:, bottom, right] * (x - left)
        return upper * (1 - (y - top)) + lower * (y - top)

    for index, (image, *corners) in enumerate(rois):
        x0, y0, x1, y1 = (math.floor(corner * scale + 0.5) for corner in corners)
        step_y, step_x = (y1 + 1 - y0) / bins, (x1 + 1 - x0) / bins
        for i in range(bins):
            for j in range(bins):
                values = [
                    interpolate(
                        features[int(image)],
                        y0 + (i + (k + 0.5) / samples) * step_y - 0.5 * aligned,
                        x0 + (j + (m + 0.5) / samples) * step_x - 0.5 * aligned,
                    )
                    for k in range(samples)
                    for m in range(samples)
                ]
                pooled[index, :, i, j] = np.mean(values, axis=0) if aggregate == "average" else np.max(values, axis=0)
    return pooled


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("aggregate", ["average", "max"])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_it_samples_the_rounded_roi(aligned, aggregate, samples):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 8, 9))
    rois = np.array([[0, 1.2, 2.9, 20.1, 17.0], [1, 5.0, 5.0, 5.5, 5.5], [1, 0.0, 0.0, 31.0, 27.0]])
    pooled = roi_warp(
        torch.from_numpy(features),
        torch.from_numpy(rois),
        (3, 3),
        0.25,
        sampling_ratio=samples,
        aligned=aligned,
        aggregate=aggregate,
    )
    np.testing.assert_allclose(pooled, reference(features, rois, 3, 0.25, samples, aligned, aggregate), atol=1e-10)


def test_without_a_sampling_ratio_the_maximum_takes_four_samples():
    features = torch.randn(1, 2, 8, 8)
    rois = torch.tensor([[0, 1.0, 2.0, 27.0, 29.0]])
    pooled = [
        roi_warp(features, rois, (2, 2), 0.25, sampling_ratio=ratio, aligned=True, aggregate="max")
        for ratio in (0, 2, 3)
    ]
    assert torch.equal(pooled[0], pooled[1])
    assert not torch.equal(pooled[0], pooled[2])


@given(st.lists(st.floats(-50, 200, width=32), min_size=4, max_size=4))
def test_rois_are_rounded_as_by_roi_pool(corners):
    """Where bins are single pixels, RoIPool's output spells out which pixels it took."""
    # Halves are left out: RoIPool rounds the negative ones away from 0.
    corners = [math.floor(corner) + 0.25 for corner in corners]
    roi = torch.tensor([[0, *corners]])
    x0, y0, x1, y1 = quantise_rois(roi, 1.0)[0, 1:].int().tolist()
    assert x1 > x0
    assert y1 > y0
    places = torch.arange(1.0, 1 + 40 * 50).reshape(1, 1, 40, 50)
    last = roi_pool(places, roi, 1, 1.0).item()
    bottom, right = min(y1, 40) - 1, min(x1, 50) - 1
    empty = bottom < max(y0, 0) or right < max(x0, 0)
    assert last == (0 if empty else places[0, 0, bottom, right].item())


def test_halves_are_rounded_up_everywhere():
    roi = torch.tensor([[0, -1.5, -0.5, 0.5, 2.5]])
    assert quantise_rois(roi, 1.0)[0, 1:].tolist() == [-1, 0, 1 + 1, 3 + 1]


def test_gradients_reach_the_features_only():
    torch.manual_seed(0)
    features = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.3, 0.2, 3.0, 2.0]], dtype=torch.float64)
    for aggregate in ("average", "max"):
        options = {"sampling_ratio": 2, "aligned": True, "aggregate": aggregate}
        assert torch.autograd.gradcheck(lambda features: roi_warp(features, rois, (2, 2), 1.0, **options), features)  # noqa: B023
    rois.requires_grad_()
    roi_warp(features, rois, (2, 2), 1.0, **options).sum().backward()
    assert rois.grad is None or not rois.grad.any()
