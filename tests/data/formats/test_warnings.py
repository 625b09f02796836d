"""Values of a property that may be classes are distinguished from names of objects by their number."""

from collections import Counter
from pathlib import Path

import pytest

from maskrcnn_ext.data.formats.warnings import warn_of_classes, warn_of_rectangles

MANY = {str(number): 1 for number in range(20)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"cat": 5, "dog": 3}, "cat (5), dog (3); add @attribute:kind to the string of the data set"),
        ({"cat": 1, "dog": 1}, "cat (1), dog (1)"),
        ({"cat": 8}, None),
        ({}, None),
        (MANY, None),
        ({**MANY, "cat": 2}, "cat (2), 0 (1), 1 (1), 2 (1), 3 (1) and 16 more"),
        ({str(number): 2 for number in range(200)}, None),
    ],
)
def test_values_that_may_be_classes_are_counted(values, expected, caplog):
    warn_of_classes(Counter(values), "kind", Path("a.json"))
    assert (expected in caplog.text) if expected else not caplog.text


def test_no_rectangle_is_no_warning(caplog):
    warn_of_rectangles(0, 5, Path("a.json"))
    assert not caplog.text
