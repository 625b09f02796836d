"""Short pieces of text for messages."""

import pytest

from maskrcnn_ext.common.text import did_you_mean, first_line, nearest, or_list, plural, printable, short_list


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  \n  indented \nnext"), "indented"),
        (ValueError(), "ValueError"),
        (KeyError("max_iter"), "max_iter"),
        (KeyError(3), "3"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), "[Errno 2] No such file or directory: 'a.json'"),
    ],
)
def test_first_line(error, expected):
    assert first_line(error) == expected


def test_nearest_ignores_case_and_returns_the_names_as_written():
    assert nearest("maskrcnn", ["MaskRCNN", "FasterRCNN"], count=1) == ["MaskRCNN"]
    assert nearest("zzz", ["MaskRCNN"]) == []
    assert nearest("a", []) == []


def test_did_you_mean_joins_the_nearest_names():
    assert did_you_mean("test1", ["test2", "test3"]) == "did you mean test3 or test2?"
    assert did_you_mean("test1", ["val"]) == ""


@pytest.mark.parametrize(
    ("names", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b and 1 more"), ({1: 0, 2: 0}, "1, 2")],
)
def test_short_list(names, expected):
    assert short_list(names, limit=2) == expected


def test_plural_and_or_list():
    assert [plural(count, "box", "boxes") for count in (0, 1, 1234)] == ["0 boxes", "1 box", "1,234 boxes"]
    assert [or_list(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a or b", "a, b or c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\r\u2028c\x85", "a\\nb\\r\\u2028c\\x85"),
        ("\ud800 \u202e", "\\ud800 \\u202e"),
        ("Käse 猫 \U0001f469\u200d\U0001f52c", "Käse 猫 \U0001f469\u200d\U0001f52c"),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected
    assert short_list([text]) == expected
