"""Masks that touch, overlap and fill their boxes are counted as by hand."""

import numpy as np
import pytest

from maskrcnn_ext.data.fingerprint.adjacency import Adjacency, measure_adjacency
from maskrcnn_ext.data.formats.records import Annotation, ImageRecord
from maskrcnn_ext.ops.rle import encode_mask, with_text_counts


def square(x, y, side, **rest):
    outline = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    return Annotation(0, (x, y, x + side, y + side), outline, **rest)


def measured(*images, size=(100, 120)):
    return measure_adjacency([ImageRecord(f"{i}.png", i, *size, list(objects)) for i, objects in enumerate(images)])


def test_masks_that_meet_at_a_side_touch():
    apart, side, corner = ([square(0, 0, 10), square(*at, 10)] for at in ((11, 0), (10, 0), (10, 10)))
    assert [measured(objects).touching for objects in (apart, side, corner)] == [0, 1, 0]
    assert measured(side).overlapping == 0
    assert measured(apart, side).touching == 1 / 2
    assert measured(side[:1], side[1:]).touching == 0, "masks of different images"


def test_masks_that_overlap_touch_too():
    found = measured([square(0, 0, 10), square(1, 1, 10), square(60, 60, 10)])
    assert found.touching == found.overlapping == pytest.approx(2 / 3)
    hidden = measured([square(2, 2, 3), square(0, 0, 10)])
    assert hidden.overlapping == 1
    assert measured([square(0, 0, 10), square(1, 1, 10, crowd=True)]) == Adjacency(1, 0.0, 0.0, 1.0)


def test_the_share_of_the_box():
    mask = np.zeros((100, 120), bool)
    mask[10:20, 10:20] = np.tri(10, dtype=bool)
    rle = with_text_counts(encode_mask(mask))
    found = measured([Annotation(0, (10, 10, 20, 20), rle)])
    assert (found.num_masks, found.fill) == (1, pytest.approx(0.55))


def test_only_some_images_are_drawn():
    assert measured(*[[square(0, 0, 5)]] * 1000).num_masks == 40
    assert measured([square(0, 0, 5)] * 401) == Adjacency()
    assert measured([square(0, 0, 5)], size=(3000, 3000)) == Adjacency()


def test_objects_without_a_mask():
    boxes = [Annotation(0, (0, 0, 5, 5)), Annotation(0, (5, 5, 5, 9), [[5, 5, 5, 9, 5, 7]])]
    assert measured(boxes, []) == measured() == Adjacency()
