"""Boundaries of masks against OpenCV's morphology."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn_ext.ops.boundary import boundary_band, mask_boundary

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
def test_the_band_is_the_morphological_gradient(mask):
    # OpenCV's default border leaves the grid's edge out, as the band does.
    expected = cv2.dilate(mask, KERNEL) - cv2.erode(mask, KERNEL)
    np.testing.assert_array_equal(boundary_band(torch.as_tensor(mask)[None].float())[0].numpy(), expected)


@pytest.mark.parametrize("function", [mask_boundary, boundary_band])
def test_no_masks(function):
    assert function(torch.zeros(0, 28, 28)).shape == (0, 28, 28)
