"""An override may replace a value only by one of a suitable kind."""

import inspect

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.config.value_kinds import check_value, kind_of


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "flag"),
        (3, "whole"),
        (3.0, "number"),
        ("3", "text"),
        ((1, 2), "list"),
        ({"a": 1}, "mapping"),
        ({"_target_": "a.B"}, "node"),
        (len, "object"),
    ],
)
def test_kinds(value, kind):
    assert kind_of(value) == kind


# Old value, new value, whether a setting allows it, and whether an argument of a call does.
RULES = [
    (3, 4, True, True),
    (3, 4.5, False, True),
    (3.0, 4, True, True),
    (3.0, [1.0], False, True),
    (3, "x", False, False),
    (True, 1, True, True),
    (True, 2, False, False),
    ("x", 3, False, False),
    ("x", None, True, True),
    (3, None, False, True),
    ([1, 2], 3, False, True),
    ([1, 2], "x", False, False),
    (["a"], 3, False, False),
    ({"a": 1}, 3, False, False),
    ({"_target_": "a.B"}, None, True, True),
    ({"_target_": "a.B"}, {"c": 1}, True, True),
    ({"_target_": "a.B"}, "a.C", False, False),
    (len, "x", False, False),
    (None, "x", True, True),
    (3, "${model.x}", True, True),
]


@pytest.mark.parametrize(("old", "new", "setting", "argument"), RULES)
def test_rules(old, new, setting, argument):
    for is_argument, allowed in ((False, setting), (True, argument)):
        if allowed:
            check_value("k=v", "k", old, new, argument=is_argument)
        else:
            with pytest.raises(InputError, match=r"^'k=v': [^\n]*$"):
                check_value("k=v", "k", old, new, argument=is_argument)


@pytest.mark.parametrize("annotation", ["int | str", int | str, str, "Any"])
def test_an_annotation_allows_other_kinds(annotation):
    parameter = inspect.Parameter("k", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    check_value("k=same", "k", 3, "same", argument=True, parameter=parameter)


def test_targets_are_checked_elsewhere():
    check_value("a._target_=3", "a._target_", "b.C", 3, argument=True)
