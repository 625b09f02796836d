"""Checks of ids, names and references: each message names the missing or repeated id."""

import pytest

from maskrcnn_ext.data.check import view_dataset
from maskrcnn_ext.data.check.records import check_records


def messages_of(folder, **changes):
    """Returns the kinds and messages of a dataset of one object."""
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
        "categories": [{"id": 1, "name": "cat", "keypoints": ["ear", "tail"]}],
    }
    return [(fault.kind, fault.message) for fault in check_records(view_dataset({**data, **changes}, folder, "set"))]


def test_clean_and_empty_datasets_have_no_faults(tmp_path):
    assert messages_of(tmp_path) == messages_of(tmp_path, images=[], annotations=[], categories=[]) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": None}, ("annotation-broken", "entry 0 of `annotations` has no `id`")),
        ({"image_id": None}, ("image-unknown", "it has no `image_id`")),
        ({"image_id": 5}, ("image-unknown", "there is no image 5")),
        ({"ignore": 1}, ("annotation-ignored", "`ignore` is set")),
        ({"keypoints": [1, 2, "x"]}, ("keypoints-broken", "`keypoints` is not a list of finite numbers")),
        ({"keypoints": [1, 2, 2]}, ("keypoints-broken", "`keypoints` has 3 numbers, expected 6")),
    ],
)
def test_a_broken_annotation_has_one_fault(tmp_path, change, expected):
    annotation = {"id": 1, "image_id": 1, "category_id": 1, **change}
    assert messages_of(tmp_path, annotations=[annotation]) == [expected]


def test_an_id_of_another_type_is_named(tmp_path):
    ((kind, message),) = messages_of(tmp_path, annotations=[{"id": 1, "image_id": 1, "category_id": "1"}])
    assert (kind, message) == ("id-type", "`category_id` is '1', the category's `id` 1")


def test_records_with_the_same_id_name_each_other(tmp_path):
    image, other = ({"id": 1, "file_name": name, "height": 8, "width": 8} for name in ("a.png", "b.png"))
    assert messages_of(tmp_path, images=[image, other]) == [
        ("image-id-duplicate", "so has entry 0 of `images` (a.png)")
    ]
    same = [{"id": 4, "image_id": 1, "category_id": 1}] * 2
    assert messages_of(tmp_path, annotations=same) == [("annotation-id-duplicate", "so has entry 0 of `annotations`")]


def test_categories_of_one_name_are_reported(tmp_path):
    names = ("id card", "id card", "ID  card ", "cat")
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    assert messages_of(tmp_path, categories=categories) == [
        ("category-name-duplicate", "'ID  card ', 'id card': the categories 1, 2, 3")
    ]
