"""Boundaries of masks against OpenCV's morphology."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from maskrcnn_ext.ops.boundary import boundary_band, boundary_region, mask_boundary, merge_at_boundary
from tests.helpers.refine_mask import blobs, region_by_cv2

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
def test_boundary_region_is_the_morphological_gradient(width):
    masks = torch.cat(
        [blobs(4, 28), torch.rand(2, 28, 28) > 0.95, torch.ones(1, 28, 28) > 0, torch.zeros(1, 28, 28) > 0]
    )
    region = boundary_region(masks, width)
    assert region.dtype == torch.bool
    assert (region.numpy() == region_by_cv2(masks, width)).all()
    assert not region[-2:].any(), "the edge of the grid is no boundary"
    assert torch.equal(boundary_region(masks.float(), width), region)


def test_the_fine_mask_replaces_the_coarse_one_at_its_boundary_only():
    coarse = torch.where(blobs(5, 28), 1.0, -1.0) * torch.rand(5, 28, 28)
    fine = torch.full((5, 56, 56), 100.0)
    merged = merge_at_boundary(coarse, fine, 1)
    region = np.kron(region_by_cv2(coarse > 0, 1), np.ones((2, 2))).astype(bool)
    upsampled = F.interpolate(coarse[None], scale_factor=2, mode="bilinear")[0].numpy()
    assert region.any()
    assert not region.all()
    assert (merged.numpy()[region] == 100).all()
    assert (merged.numpy()[~region] == upsampled[~region]).all()
