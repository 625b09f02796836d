"""Numbers become objects, whole or each connected part of them."""

from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.label_objects import objects_of_classes, objects_of_numbers

FILE = Path("a.png")
LABELS = np.array([[0, 0, 3, 3, 0], [0, 0, 3, 0, 0], [9, 9, 0, 0, 3]])


def masks(objects):
    return [mask_util.decode(found.segmentation).tolist() for found in objects]


def test_all_pixels_of_a_number_or_each_part():
    in_parts = []
    whole = objects_of_numbers(LABELS, None, True, in_parts, [], FILE)
    assert masks(whole) == [(value == LABELS).astype(int).tolist() for value in (3, 9)]
    assert [(found.id, found.category) for found in whole] == [(3, 0), (9, 0)]
    assert in_parts == ["number 3 of a.png"]
    parts = objects_of_numbers(LABELS, None, False, [], [], FILE)
    assert sorted(found.box for found in parts) == [(0, 2, 2, 3), (2, 0, 4, 2), (4, 2, 5, 3)]


def test_classes_of_the_numbers():
    numbers = np.array([[1, 0, 2]])
    assert [found.category for found in objects_of_numbers(numbers, [4, 5], True, [], [], FILE)] == [4, 5]
    with pytest.raises(InputError, match=r"a\.png: has a number above 1"):
        objects_of_numbers(numbers, [4], True, [], [], FILE)
    found = objects_of_classes(LABELS, {3: 1, 9: 0}, FILE)
    assert sorted((one.category, one.box) for one in found) == [(0, (0, 2, 2, 3)), (1, (2, 0, 4, 2)), (1, (4, 2, 5, 3))]
    with pytest.raises(InputError, match=r"number 9 is neither in `categories` nor in `ignore`$"):
        objects_of_classes(LABELS, {3: 1}, FILE)


def test_parts_that_touch_at_a_corner_are_one():
    assert len(objects_of_classes(np.eye(3, 5, dtype=np.uint8), {1: 0}, FILE)) == 1


@pytest.mark.parametrize(("values", "is_white"), [([0, 40, 255], True), ([0, 255], False), ([254, 255], False)])
def test_white_beside_other_numbers(values, is_white):
    white = []
    objects_of_numbers(np.array([values]), None, True, [], white, FILE)
    assert white == (["number 255 of a.png"] if is_white else [])


def test_masks_with_smoothed_edges_are_refused():
    """As after JPEG or resizing, whose intermediate values would each become an object."""
    mask = np.zeros((60, 80), np.uint8)
    for x in (10, 30, 60):
        mask[10 + x // 3 : 40, x : x + 15] = 255
    with pytest.raises(InputError, match=r"a\.png: has \d+ values up to 255, .* its edges were smoothed"):
        objects_of_numbers(cv2.GaussianBlur(mask, (7, 7), 2), None, True, [], [], FILE)
    # As many values, each a single region.
    many = np.kron(np.arange(1, 256, dtype=np.uint8).reshape(15, 17), np.ones((4, 4), np.uint8))
    assert len(objects_of_numbers(many, None, True, [], [], FILE)) == 255
