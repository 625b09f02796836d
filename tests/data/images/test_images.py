"""Checks that all readers of images share: size, window and slice."""

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images import MAX_VALUES, check_size, slice_of, window_of


def test_images_that_are_too_large_or_empty_are_errors():
    check_size("a.tif", (2**14, 2**15))
    assert MAX_VALUES == 2**14 * 2**15
    with pytest.raises(InputError, match=r"a\.tif: 16384 x 32769 values are more than the 536870912 .*tiles"):
        check_size("a.tif", (2**14, 2**15 + 1))
    for shape in ((0, 5), (5, 0, 3)):
        with pytest.raises(InputError, match=r"a\.tif: has no pixels \("):
            check_size("a.tif", shape)


@pytest.mark.parametrize("window", [[0, 0, 60, 40], (59, 39, 1, 1), np.array([3, 4, 5, 6]), ["3", "4", "5", "6"]])
def test_a_window_inside_the_image_is_returned(window):
    found = window_of({"file_name": "a.tif", "window": window}, 40, 60)
    assert found == tuple(int(value) for value in window)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ([0, 0, 61, 40], "is not inside its 60 x 40 pixels"),
        ([0, 1, 60, 40], "is not inside its 60 x 40 pixels"),
        ([-1, 0, 5, 5], "is not inside"),
        ([0, 0, 0, 5], "is not inside"),
        ([0, 0, 5], r"expected \[x, y, width, height\]"),
        (None, r"is None, expected \[x, y, width, height\]"),
        ("abcd", r"expected \[x, y, width, height\]"),
    ],
)
def test_a_wrong_window_is_an_error(window, message):
    with pytest.raises(InputError, match=rf"^a\.tif: `window` .*{message}"):
        window_of({"file_name": "a.tif", "window": window}, 40, 60)


def test_a_slice_is_an_index_of_the_stack():
    assert [slice_of({"file_name": "a.tif", "slice": index}, 3) for index in range(3)] == [0, 1, 2]
    for index in (3, -1, 1.0, "1"):
        with pytest.raises(InputError, match=r"a\.tif: `slice` is .*, expected a number from 0 to 2"):
            slice_of({"file_name": "a.tif", "slice": index}, 3)
    with pytest.raises(InputError, match=r"a\.tif: a stack of 3 images: its record needs `slice`, from 0 to 2"):
        slice_of({"file_name": "a.tif"}, 3)
