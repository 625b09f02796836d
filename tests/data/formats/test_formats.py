"""The records of the formats agree with the functions that read them."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_ext.data.formats import FORMATS, Option, get_format
from maskrcnn_ext.errors import InputError

# Kind of an option -> type of the parameter.
_TYPES = {
    "text": "str",
    "texts": "Sequence[str]",
    "number": "float",
    "whole number": "int",
    "numbers": "",  # tuple[float, float] or Sequence[int]
    "switch": "bool",
    "names": "Mapping[int, str",
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_record_lists_the_keywords_of_its_read_function(name):
    record = get_format(name)
    parameters = dict(inspect.signature(record.read).parameters)
    parameters.pop("classes")
    assert record.lists_faults == (parameters.pop("faults", None) is not None)
    assert record.name == name
    assert [option.name for option in record.options] == list(parameters)
    for option in record.options:
        parameter = parameters[option.name]
        assert option.required == (parameter.default is parameter.empty)
        assert option.is_path == ("Path" in str(parameter.annotation))
        assert (option.kind == "function") == ("Callable" in str(parameter.annotation))
        assert option.is_path or option.kind == "function" or _TYPES[option.kind] in str(parameter.annotation)


@pytest.mark.parametrize("name", FORMATS)
def test_the_shorthand_sets_paths_and_covers_every_required_option(name):
    record = get_format(name)
    options = [record.option(key) for key in record.shorthand]
    assert all(option.is_path for option in options)
    assert {option.name for option in record.options if option.required} <= set(record.shorthand)
    assert record.split_option is None or record.option(record.split_option)
    assert record.crowd_option is None or record.option(record.crowd_option.partition(":")[0])


@pytest.mark.parametrize(
    ("kind", "valid", "wrong"),
    [
        ("file", ["a.json", Path("a.json")], 5),
        ("text", ["", "a"], 3),
        ("texts", [[], ["a"], ("a", "b")], "ab"),
        ("number", [0, 0.5, np.float32(2), 10**400], float("nan")),
        ("whole number", [0, np.int64(512), 10**400], 512.0),
        ("numbers", [[], (50, 0.5), np.array([3, 255])], [True]),
        ("switch", [True, False], 1),
        ("names", [{1: "cat", 2: None}], {1: 2}),
    ],
)
def test_an_option_takes_values_of_its_kind(kind, valid, wrong):
    option = Option("it", "any", kind)
    for value in valid:
        option.check(value)
    with pytest.raises(InputError, match=f"^`it` is {re.escape(repr(wrong))}, expected "):
        option.check(wrong)


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown format 'pascal', expected one of bdd100k, .*, yolo"):
        get_format("pascal")


def test_formats_load_one_at_a_time(run_python):
    code = "import sys; from maskrcnn_ext.data import formats; formats.get_format('coco'); print(*sys.modules)"
    loaded = run_python("-c", code).stdout.split()
    assert "maskrcnn_ext.data.formats.coco" in loaded
    assert not any(name.startswith("maskrcnn_ext.data.formats.openimages") for name in loaded)
