"""Fields of COCO records: values, and None for wrong ones."""

import pytest

from maskrcnn_ext.data.check import view_dataset
from maskrcnn_ext.data.formats.coco import parse_images
from maskrcnn_ext.data.formats.coco_fields import (
    are_numbers,
    has_keypoint_count,
    is_number,
    read_box,
    read_id,
    read_side,
)
from maskrcnn_ext.errors import InputError

HUGE = 10**400  # JSON allows it, but no float holds it


@pytest.mark.parametrize("value", [True, None, "3", float("nan"), float("inf"), HUGE, -HUGE, [3]])
def test_values_that_are_no_numbers(value):
    assert not is_number(value)
    assert read_side(value) is None
    assert read_box([0, 0, value, 1]) is None
    assert are_numbers([value]) == (value is True)


def test_boxes_become_corners_and_keep_negative_sides():
    assert read_box((1, 2.5, 3, -4)) == (1.0, 2.5, 4.0, -1.5)
    assert read_box([1, 2, 3]) is read_box("1234") is None


def test_ids_are_numbers_or_texts():
    assert [read_id({"id": value}, "id") for value in (0, "a", 1.5, 2.0, True, [1])] == [0, "a", 1.5, 2, None, None]
    assert read_id({}, "id") is read_id("id", "id") is None


def test_keypoints_have_three_numbers_each():
    assert [has_keypoint_count(count, 0) for count in (-1, 0, 3, 4)] == [False, True, True, False]
    assert [has_keypoint_count(count, 6) for count in (3, 6)] == [False, True]


@pytest.mark.parametrize("height", [480, 480.0, 480.5, 0, -1, "480", True, HUGE])
def test_training_and_the_checks_agree_on_sizes(tmp_path, height):
    record = {"id": 1, "file_name": "a.png", "height": height, "width": 640}
    data = {"images": [record], "annotations": [], "categories": []}
    read = view_dataset(data, tmp_path, "a").images[0].height
    if read is None:
        with pytest.raises(InputError, match=r"image 1: `height` is .*, expected a whole number of pixels above 0"):
            parse_images([record], "a.json")
    else:
        assert parse_images([record], "a.json")[1].height == read == 480
