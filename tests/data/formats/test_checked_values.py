"""Values of annotation files: what is read, and errors that name the value and its place."""

import math

import numpy as np
import pycocotools.mask as mask_util
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.checked_values import are_fractions, category_of, checked_rle, clip_box, finite


def test_numbers():
    assert finite(["1", 2, 2.5], "here") == [1.0, 2.0, 2.5]
    for values, message in (
        ([1, "a"], "numbers, found"),
        ([None], "numbers"),
        ([math.nan], "finite numbers"),
        ([1e400], "finite"),
    ):
        with pytest.raises(InputError, match=f"^here: expected {message}"):
            finite(values, "here")


def test_a_class_name():
    assert category_of("b", ["a", "b"], "here") == 1
    with pytest.raises(InputError, match=r"^here: class 'c', expected one of a, b"):
        category_of("c", ["a", "b"], "here")


def test_a_box_is_clipped_and_counted_unless_it_was_rounded():
    clipped = []
    assert clip_box((-5, 2, 30, 9.0004), 9, 20, "here", clipped) == (0, 2, 20, 9)
    assert clipped == ["here"]
    assert clip_box((1, 2, 3, 9.0004), 9, 20, "there", clipped) == (1, 2, 3, 9)
    assert clipped == ["here"]
    for box in ((20, 0, 25, 5), (3, 3, 3, 5), (5, 3, 4, 5), (0, -4, 5, 0)):
        with pytest.raises(InputError, match=r"^here: box .* has no area in an image of 20 x 9"):
            clip_box(box, 9, 20, "here")


def test_an_rle_and_its_box():
    pixels = np.zeros((9, 20), np.uint8, order="F")
    pixels[2:5, 3:11] = 1
    rle = mask_util.encode(pixels)
    box, checked = checked_rle(rle, 9, 20, "here")
    assert box == (3, 2, 11, 5)
    assert checked == {"size": [9, 20], "counts": rle["counts"].decode()}
    with pytest.raises(InputError, match=r"^here: the mask has no pixel"):
        checked_rle(mask_util.encode(np.zeros((9, 20), np.uint8, order="F")), 9, 20, "here")
    with pytest.raises(InputError, match=r"^here: "):
        checked_rle(rle, 20, 9, "here")


def test_fractions_lie_in_the_first_pixel():
    assert are_fractions([(0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1)])
    assert are_fractions([(0.2, 0.3, 1.0, 1.02)])
    assert not are_fractions([(0.2, 0.3, 1.0, 1.2)])
    assert not are_fractions([(0, 0, 1, 1)])
    assert not are_fractions([])
