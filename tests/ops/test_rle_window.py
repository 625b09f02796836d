"""A window of an RLE has the pixels that the whole mask has there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_util

from maskrcnn_ext.ops.rle_window import rle_window


@settings(max_examples=100, deadline=None)
@given(
    mask=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1)),
    data=st.data(),
)
def test_it_is_a_part_of_the_decoded_mask(mask, data):
    height, width = mask.shape
    (x0, x1), (y0, y1) = (
        sorted(data.draw(st.tuples(st.integers(0, side), st.integers(0, side)))) for side in (width, height)
    )
    window = rle_window(mask_util.encode(np.asfortranarray(mask)), x0, y0, x1, y1)
    assert window.dtype == np.uint8
    np.testing.assert_array_equal(window, mask[y0:y1, x0:x1])
