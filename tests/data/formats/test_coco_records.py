"""The categories and images of COCO JSON are parsed without a file, as the evaluation does for ground truth."""

import pytest

from maskrcnn_ext.data.formats.coco_records import keypoint_names, parse_categories, parse_images
from maskrcnn_ext.errors import InputError

CATEGORIES = [{"id": 9, "name": "b", "keypoints": ["tip"]}, {"id": 4, "name": "a"}]
IMAGE = {"id": 2, "height": 40, "width": 60}


def test_categories_are_in_the_order_of_their_ids():
    categories = parse_categories(CATEGORIES, "truth")
    assert [category["name"] for category in categories] == ["a", "b"]
    assert keypoint_names(categories) == ["tip"]


def test_two_images_of_one_id():
    with pytest.raises(InputError, match="truth: two images have the id 2"):
        parse_images([IMAGE, IMAGE], "truth")
