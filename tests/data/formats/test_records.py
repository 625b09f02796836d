"""Records: keypoints between pixel indices and sub-pixel coordinates, and annotations of masks."""

import numpy as np

from maskrcnn_ext.data.formats.records import (
    annotation_of_mask,
    keypoints_to_pixel_indices,
    keypoints_to_subpixel,
)
from maskrcnn_ext.ops.rle import decode_rle


def test_keypoints_move_by_half_a_pixel_and_keep_their_visibility():
    indices = [3, 7, 2, 0, 0, 0]
    assert keypoints_to_subpixel(indices) == [3.5, 7.5, 2, 0.5, 0.5, 0]
    assert keypoints_to_pixel_indices(keypoints_to_subpixel(indices)) == indices
    assert keypoints_to_subpixel([]) == []


def test_the_annotation_of_a_mask_has_its_tight_box_and_pixels():
    mask = np.zeros((6, 9), dtype=bool)
    mask[2:4, 5:8] = mask[5, 5] = True
    annotation = annotation_of_mask(mask, 3, id="a", crowd=True)
    assert (annotation.category, annotation.box, annotation.id, annotation.crowd) == (
        3,
        (5.0, 2.0, 8.0, 6.0),
        "a",
        True,
    )
    np.testing.assert_array_equal(decode_rle(annotation.segmentation), mask)
