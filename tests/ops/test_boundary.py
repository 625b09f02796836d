"""Boundaries of masks against OpenCV's morphology."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn_ext.ops.boundary import boundary_band, boundary_region, mask_boundary, merge_at_boundary
from tests.helpers.refine_mask import blobs, doubled, near_boundary

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))
KERNEL = np.ones((3, 3), np.uint8)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_the_laplacian_boundary_is_the_mask_minus_its_erosion(mask):
    eroded = cv2.erode(mask, KERNEL, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    result = mask_boundary(torch.as_tensor(mask)[None])[0]
    np.testing.assert_array_equal(result.numpy(), mask & ~eroded & 1)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_boundary_band_is_the_morphological_gradient(mask):
    # OpenCV's default border leaves the grid's edge out, as the band does.
    expected = cv2.dilate(mask, KERNEL) - cv2.erode(mask, KERNEL)
    np.testing.assert_array_equal(boundary_band(torch.as_tensor(mask)[None].float())[0].numpy(), expected)


@pytest.mark.parametrize("function", [mask_boundary, boundary_band])
def test_no_masks(function):
    assert function(torch.zeros(0, 28, 28)).shape == (0, 28, 28)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_boundary_region_counts_the_pixels_of_the_other_value(width):
    masks = torch.cat(
        [blobs(4, 28), torch.rand(2, 28, 28) > 0.95, torch.ones(1, 28, 28) > 0, torch.zeros(1, 28, 28) > 0]
    )
    region = boundary_region(masks, width)
    assert region.dtype == torch.bool
    np.testing.assert_array_equal(region.numpy(), near_boundary(masks, width))
    assert not region[-1].any()
    assert region[-2].any(), "outside the grid is background"
    assert torch.equal(boundary_region(masks.float(), width), region)
    assert boundary_region(masks[:0], width).shape == (0, 28, 28)


def test_a_region_of_width_1_is_the_morphological_gradient():
    masks = blobs(3, 28).numpy().astype(np.uint8)
    border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    expected = [cv2.dilate(mask, KERNEL, **border) != cv2.erode(mask, KERNEL, **border) for mask in masks]
    np.testing.assert_array_equal(boundary_region(torch.as_tensor(masks), 1).numpy(), np.stack(expected))


def test_the_fine_mask_replaces_the_coarse_one_at_its_boundary_only():
    coarse = torch.where(blobs(5, 28), 1.0, -1.0) * torch.rand(5, 28, 28)
    fine = torch.full((5, 56, 56), 100.0)
    merged = merge_at_boundary(coarse, fine, 1).numpy()
    region = doubled(near_boundary(coarse >= 0, 1)) >= 0.5
    assert region.any()
    assert not region.all()
    assert (merged[region] == 100).all()
    np.testing.assert_allclose(merged[~region], doubled(coarse)[~region], atol=1e-5)
