"""A data set is read once within the context, and again outside of it."""

import json

import pytest

from maskrcnn_ext.data.registry import read_once
from maskrcnn_ext.data.registry.catalog import get_dataset_dicts, load_dataset
from maskrcnn_ext.data.registry.read_once import read_data_sets_once
from maskrcnn_ext.errors import InputError


@pytest.fixture
def labels(tmp_path):
    """Returns the name of a data set of one image, and a function that names its class."""
    file = tmp_path / "labels.json"

    def write(name):
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
        images = [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}]
        categories = [{"id": 1, "name": name}]
        file.write_text(json.dumps({"images": images, "annotations": [box], "categories": categories}))

    write("cat")
    return f"coco:{file}@{tmp_path}", write


def test_files_are_read_once(labels):
    name, write = labels
    with read_data_sets_once():
        first = load_dataset(name)
        write("dog")
        assert load_dataset(name).classes == ["cat"]
        with read_data_sets_once():
            assert load_dataset(name) == first
        assert load_dataset(name).classes == ["cat"]
    assert load_dataset(name).classes == ["dog"]


def test_each_caller_gets_a_copy(labels):
    name, _ = labels
    with read_data_sets_once():
        load_dataset(name).images[0].annotations.clear()
        load_dataset(name).images.clear()
        assert len(get_dataset_dicts(name)[0]["annotations"]) == 1


def test_a_large_data_set_is_read_again(labels, monkeypatch):
    monkeypatch.setattr(read_once, "_MOST_OBJECTS", 0)
    name, write = labels
    with read_data_sets_once():
        assert load_dataset(name).classes == ["cat"]
        write("dog")
        assert load_dataset(name).classes == ["dog"]


def test_a_failure_is_not_kept(labels, tmp_path):
    name, write = labels
    (tmp_path / "labels.json").write_text("{")
    with read_data_sets_once():
        with pytest.raises(InputError):
            load_dataset(name)
        write("cat")
        assert load_dataset(name).classes == ["cat"]
