"""Objects drawn over images."""

import numpy as np
import pytest

from maskrcnn_ext.report.draw import Item, decode, draw, palette

RED = (0, 0, 255)


def test_a_mask_tints_its_inside_and_nothing_else():
    image = np.full((20, 30, 3), 100, np.uint8)
    polygon = [[5.0, 5.0, 25.0, 5.0, 25.0, 15.0, 5.0, 15.0]]
    picture = draw(image, [Item(polygon, (5, 5, 25, 15), "", RED)])
    changed = (picture != image).any(axis=2)
    np.testing.assert_array_equal(changed[5:15, 5:25], True)
    assert not changed[:4].any()
    assert not changed[:, 27:].any()
    assert (image == 100).all(), "the image itself is left as it is"
    assert picture[10, 15].tolist() == [55, 55, 169], "45 % of red over 55 % of grey"


def test_a_box_is_drawn_where_there_is_no_mask_and_pictures_scale():
    image = np.zeros((20, 30, 3), np.uint8)
    picture = draw(image, [Item(None, (5, 5, 25, 15), "thing", RED)], scale=4)
    assert picture.shape == (80, 120, 3)
    assert picture[40, 20, 2] > 200 > 100 > picture[40, 20, :2].max(), "an edge, softened"
    assert picture[40, 60].tolist() == [0, 0, 0]


@pytest.mark.parametrize("height", [1, 7])
def test_all_kinds_of_segmentation_decode_alike(height):
    import pycocotools.mask as mask_util

    mask = np.zeros((height, 9), np.uint8)
    mask[:, 2:6] = 1
    compressed = mask_util.encode(np.asfortranarray(mask))
    uncompressed = {"size": [height, 9], "counts": [2 * height, 4 * height, 3 * height]}
    polygon = [[2, 0, 6, 0, 6, height, 2, height]]
    for segmentation in (compressed, {**compressed, "counts": compressed["counts"].decode()}, uncompressed, polygon):
        np.testing.assert_array_equal(decode(segmentation, height, 9), mask)


def test_neighbouring_colours_differ():
    colors = [palette(index) for index in range(12)]
    assert min(np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colors) for b in colors[:i]) > 60
