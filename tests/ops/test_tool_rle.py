"""Masks of CVAT and Label Studio. The expected numbers are what cvat-sdk's and label-studio-sdk's own encoders write."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext.ops.tool_rle import decode_brush, decode_rows, encode_brush, encode_rows

MASK = np.array([[0, 1, 1, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 1]], bool)
# cvat_sdk.masks.encode_mask(MASK), without the box behind the counts
CVAT = [1, 2, 2, 2, 2, 1, 3, 2]
# label_studio_sdk.converter.brush.encode_rle of the mask as RGBA
BRUSH = [0, 0, 0, 60, 57, 27, 252, 96, 19, 255, 206, 1, 63, 252, 224, 17, 255, 219, 0, 159, 252]
# The same of an image of 2 x 3 pixels of many values, of which (1, 0) and (2, 1) are not transparent
SOFT = [0, 0, 0, 24, 57, 27, 252, 96, 0, 5, 0, 40, 0, 240, 25, 22, 192, 0, 1, 0, 8, 0, 48, 32, 0]

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


def test_the_tools_own_encodings_are_read_and_written():
    assert encode_rows(MASK) == CVAT
    assert encode_brush(MASK) == BRUSH
    np.testing.assert_array_equal(decode_rows(CVAT, 3, 5), MASK)
    np.testing.assert_array_equal(decode_brush(BRUSH, 3, 5), MASK)
    np.testing.assert_array_equal(decode_brush(SOFT, 2, 3), [[0, 1, 0], [0, 0, 1]])


@settings(max_examples=60, deadline=None)
@given(mask=masks)
def test_any_mask_comes_back(mask):
    np.testing.assert_array_equal(decode_rows(encode_rows(mask), *mask.shape), mask)
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), *mask.shape), mask)


def test_runs_of_more_than_16_bits_come_back():
    mask = np.zeros((300, 400), bool)
    mask[100:250] = True
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), 300, 400), mask)


@pytest.mark.parametrize("counts", [[], [14], [16], [-1, 16], [5, 5, 5, 5]])
def test_counts_of_another_size_are_refused(counts):
    with pytest.raises(ValueError, match=r"add up to -?\d+, not to its 3 x 5 pixels"):
        decode_rows(counts, 3, 5)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (BRUSH[:-3], "cut off"),
        ([], "cut off"),
        ([*BRUSH[:3], 61, *BRUSH[4:]], "of 61 values, not of 3 x 5 x 4"),
        ([*BRUSH[:8], 255, 255, 255, 255, 255], "more values than it says"),
        ([300], "not a list of bytes"),
        ("abc", "not a list of bytes"),
        (None, "not a list of bytes"),
    ],
)
def test_broken_brushes_are_refused(rle, message):
    with pytest.raises(ValueError, match=message):
        decode_brush(rle, 3, 5)
