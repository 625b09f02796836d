"""Detections of tiles are placed in the image; empty ones and margins of cut objects are left out."""

import numpy as np
import pytest
from pycocotools import mask as mask_util

from maskrcnn_ext.inference.tiling.tile_detections import make_tile_detections
from maskrcnn_ext.ops.tile_grid import TileGrid

# Two tiles of 100 x 100 that share 20 columns, 80 to 100; the left one's core ends at 90.
GRID = TileGrid(180, 100, 100, 0.2)


def result(x0, y0, x1, y1, *, box=None, with_mask=True):
    mask = np.zeros((100, 100), np.uint8)
    mask[y0:y1, x0:x1] = 1
    found = {"category_id": 0, "score": 0.9, "bbox": box or [x0, y0, x1 - x0, y1 - y0]}
    return {**found, "segmentation": mask_util.encode(np.asfortranarray(mask))} if with_mask else found


def test_boxes_are_in_the_image_and_enclose_box_and_mask():
    _, (right,) = make_tile_detections([[], [result(10, 20, 30, 40, box=[12, 15, 30, 10])]], GRID)
    assert (right.tile, right.box) == (1, (90, 15, 122, 40))


def test_clearance_is_the_distance_to_the_cut():
    (near, whole), (left_edge,) = make_tile_detections(
        [[result(60, 20, 98, 40), result(0, 20, 90, 40)], [result(2, 20, 60, 40)]], GRID
    )
    assert (near.clearance, near.is_whole) == (2, False)
    assert (whole.clearance, whole.is_whole) == (10, True)  # the left edge of the image cuts nothing
    assert (left_edge.clearance, left_edge.is_whole) == (2, False)


def test_empty_masks_and_margins_of_cut_objects_are_left_out():
    margin = result(92, 20, 100, 40)  # beyond the left tile's core, and cut
    assert make_tile_detections([[result(0, 0, 0, 0), margin], []], GRID) == [[], []]


@pytest.mark.parametrize("with_mask", [True, False])
def test_segments_are_the_pixels_in_the_image(with_mask):
    _, (right,) = make_tile_detections([[], [result(10, 20, 30, 40, with_mask=with_mask)]], GRID)
    expected = np.zeros((100, 180), np.uint8)
    expected[20:40, 90:110] = 1
    np.testing.assert_array_equal(mask_util.decode(right.segments(GRID).to_rle((100, 180))), expected)
