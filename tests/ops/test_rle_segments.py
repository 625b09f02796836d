"""Masks as segments: against dense arrays and pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as mask_util

from maskrcnn_ext.ops.rle_segments import Segments, rle_window

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = SIZES.flatmap(lambda size: arrays(np.uint8, size, elements=st.integers(0, 1)))
PAIRS = SIZES.flatmap(lambda size: st.tuples(*[arrays(np.uint8, size, elements=st.integers(0, 1))] * 2))
WINDOWS = st.tuples(*[st.integers(0, 14)] * 4)


def segments_of(mask):
    return Segments.from_rle(mask_util.encode(np.asfortranarray(mask)))


def dense(segments, size):
    return mask_util.decode(segments.to_rle(size))


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_rle_round_trip_with_area_and_box(mask):
    rle = mask_util.encode(np.asfortranarray(mask))
    segments = Segments.from_rle(rle)
    assert segments.to_rle(mask.shape) == rle
    assert Segments.from_rle({**rle, "counts": rle["counts"].decode()}).to_rle(mask.shape) == rle
    assert segments.area() == mask.sum()
    x, y, width, height = mask_util.toBbox(rle)
    assert segments.box() == (x, y, x + width, y + height)


def test_uncompressed_counts_are_read():
    segments = Segments.from_rle({"size": [3, 2], "counts": [2, 2, 2]})
    np.testing.assert_array_equal(dense(segments, (3, 2)), [[0, 1], [0, 0], [1, 0]])


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_union_and_overlap_are_those_of_the_pixels(pair):
    one, other = pair
    a, b = map(segments_of, pair)
    np.testing.assert_array_equal(dense(Segments.union([a, b]), one.shape), one | other)
    assert a.overlap(b) == b.overlap(a) == (one & other).sum()


@settings(max_examples=60, deadline=None)
@given(MASKS, WINDOWS)
def test_crop_to_a_window_and_its_complement(mask, window):
    x, y, width, height = window
    inside = np.zeros_like(mask)
    inside[y : y + height, x : x + width] = mask[y : y + height, x : x + width]
    segments = segments_of(mask)
    np.testing.assert_array_equal(dense(segments.crop(window), mask.shape), inside)
    np.testing.assert_array_equal(dense(segments.without(window), mask.shape), mask - inside)


@settings(max_examples=30, deadline=None)
@given(MASKS, st.integers(0, 5), st.integers(0, 5))
def test_a_shift_moves_into_another_image(mask, dx, dy):
    height, width = mask.shape
    moved = np.zeros((height + 7, width + 7), np.uint8)
    moved[dy : dy + height, dx : dx + width] = mask
    shifted = segments_of(mask).shift(dx, dy)
    np.testing.assert_array_equal(dense(shifted, moved.shape), moved)
    assert shifted.shift(-dx, -dy).to_rle(mask.shape) == segments_of(mask).to_rle(mask.shape)


def test_a_box_is_a_mask():
    np.testing.assert_array_equal(dense(Segments.of_box(1, 2, 3, 4), (5, 4)).nonzero(), [[2, 2, 3, 3], [1, 2, 1, 2]])
    assert Segments.of_box(1, 2, 1, 4).area() == Segments.of_box(1, 2, 3, 2).area() == 0


def test_empty_masks():
    nothing = segments_of(np.zeros((4, 5), np.uint8))
    assert (nothing.area(), nothing.box(), nothing.overlap(nothing)) == (0, (0, 0, 0, 0), 0)
    assert Segments.union([nothing, nothing]).without((0, 0, 2, 2)).shift(3, 3).area() == 0


def test_distant_coordinates_are_exact_and_need_no_memory():
    """A tile's mask at the end of an image of nearly 2**32 pixels, the most that pycocotools counts."""
    size = (65_000, 66_000)
    rle = segments_of(np.ones((3, 2), np.uint8)).shift(65_990, 64_990).to_rle(size)
    assert mask_util.toBbox(rle).tolist() == [65_990, 64_990, 2, 3]
    assert Segments.from_rle(rle).box() == (65_990, 64_990, 65_992, 64_993)


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [3, 2], "counts": b""},
        {"size": [3, 2], "counts": b"5"},
        {"size": [3, 2], "counts": b"P"},
        {"size": [3, 2], "counts": b"\x01"},
        {"size": [3, 2], "counts": [2, -2, 6]},
        {"size": [3, 2], "counts": []},
        {"size": [3, 2], "counts": b"oooooooooo1"},
    ],
)
def test_a_broken_rle_is_refused(rle):
    with pytest.raises(ValueError, match="an RLE whose `counts`"):
        Segments.from_rle(rle)


@settings(max_examples=100, deadline=None)
@given(
    mask=MASKS,
    data=st.data(),
)
def test_a_window_is_part_of_the_decoded_mask(mask, data):
    height, width = mask.shape
    (x0, x1), (y0, y1) = (
        sorted(data.draw(st.tuples(st.integers(0, side), st.integers(0, side)))) for side in (width, height)
    )
    window = rle_window(mask_util.encode(np.asfortranarray(mask)), x0, y0, x1, y1)
    assert window.dtype == np.uint8
    np.testing.assert_array_equal(window, mask[y0:y1, x0:x1])


@pytest.mark.parametrize("seed", range(3))
def test_the_part_in_a_window(seed):
    whole = np.zeros((12, 9), dtype=bool)
    part = np.random.default_rng(seed).random((5, 4)) < 0.6
    whole[3:8, 2:6] = part
    found = Segments.of_window(part, x=2, y=3)
    assert (dense(found, (12, 9)) == whole).all()
    assert not Segments.of_window(np.zeros((5, 4), dtype=bool), x=2, y=3).area()
