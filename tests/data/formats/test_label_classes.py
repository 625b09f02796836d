"""Where the classes of label images are: a JSON, a table, or images whose numbers are classes."""

import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.label_classes import numbers_in, read_categories, read_classes, set_classes
from maskrcnn_ext.data.formats.label_objects import objects_of_numbers

LABELS = np.array([[1, 1, 1, 0], [2, 2, 2, 2]], np.uint8)


def test_a_json_has_the_class_of_each_object(tmp_path):
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"classes": ["a", "b"], "objects": {"1.png": [0, 1], "2.png": []}}))
    assert read_classes(file) == (["a", "b"], {"1.png": [0, 1], "2.png": []})
    for content in (
        [],
        {"classes": ["a"]},
        {"classes": ["a"], "objects": {"1.png": [1]}},
        {"classes": 1, "objects": {}},
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"classes\.json: expected"):
            read_classes(file)


def test_a_table_has_the_class_of_each_number_but_0(tmp_path):
    file = tmp_path / "_classes.csv"
    file.write_text("Pixel Value, Class\n0, background\n1, bolt\n")
    assert read_categories(file) == {1: "bolt"}
    file.write_text("Pixel Value, Class\n1, bolt, M8\n")
    with pytest.raises(InputError, match=r"_classes\.csv: expected a number and a class name"):
        read_categories(file)


def test_numbers_without_names(tmp_path):
    assert numbers_in([], ()) == {1: "1"}
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    Image.fromarray(LABELS + 7).save(tmp_path / "b.png")
    assert numbers_in([tmp_path / "a.png", tmp_path / "b.png"], (7, 255)) == {1: "1", 2: "2", 8: "8", 9: "9"}


def test_an_object_has_the_class_of_most_of_its_pixels(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(np.array([[5, 6, 6, 0], [255, 255, 255, 5]], np.uint8)).save(file)
    objects = objects_of_numbers(LABELS, None, True, [], [], file)
    set_classes(objects, file, {5: 0, 6: 1}, file, 2, 4)
    assert [found.category for found in objects] == [1, 0]  # 255 is no class
    with pytest.raises(InputError, match=r"a\.png: object 2 at .* has the number 255 in"):
        set_classes(objects, file, {6: 1}, file, 2, 4)
