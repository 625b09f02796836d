"""The fingerprint of a data set, and its cache."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_ext.data.fingerprint import data_set, fingerprint
from maskrcnn_ext.errors import InputError
from tests.helpers.labelled_images import noise, write_data


@pytest.fixture
def name(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKRCNN_EXT_CACHE", str(tmp_path / "cache"))
    images = [(f"{i}.png", noise(40, 50, 3, seed=i)) for i in range(3)]
    return write_data(tmp_path / "data", images, [(0, 0, 2, 3, 10, 20), (1, 0, 5, 5, 8, 8)])


def test_figures_of_objects_and_images(name):
    found = fingerprint(name)
    assert (found.name, found.num_images, found.objects.total) == (name, 3, 2)


def assert_equal(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, field.name


def test_the_second_time_comes_from_the_cache(name, monkeypatch):
    first = fingerprint(name)
    monkeypatch.setattr(data_set, "measure_images", lambda _: pytest.fail("measured again"))
    again = fingerprint(name)
    assert_equal(again.objects, first.objects)
    assert_equal(again.images, first.images)


def test_a_changed_image_or_annotation_is_measured_again(name):
    first = fingerprint(name)
    folder = Path(name.partition("@")[2])
    os.utime(folder / "0.png", (1, 1))
    second = fingerprint(name)
    assert second.key != first.key
    content = json.loads((folder / "data.json").read_text())
    content["annotations"][0]["bbox"][2] = 11
    (folder / "data.json").write_text(json.dumps(content))
    assert fingerprint(name).objects.boxes[0].tolist() != first.objects.boxes[0].tolist()


def test_a_damaged_entry_is_ignored(name, tmp_path):
    first = fingerprint(name)
    (tmp_path / "cache" / first.key).write_bytes(b"damaged")
    assert_equal(fingerprint(name).objects, first.objects)


def test_without_a_cache(name, monkeypatch, tmp_path):
    monkeypatch.setenv("MASKRCNN_EXT_CACHE", "off")
    assert fingerprint(name).num_images == 3
    assert not (tmp_path / "cache").exists()


def test_errors_name_the_data_set(tmp_path):
    name = write_data(tmp_path / "broken", [("a.png", b"")], [])
    with pytest.raises(InputError, match=r"data set coco:.*: none of 1 image can be read"):
        fingerprint(name)
