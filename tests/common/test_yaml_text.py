"""YAML of unknown origin: no code runs, and a small file stays small."""

import time

import pytest

from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.errors import InputError


def bomb(levels, first="[x, x]", level="[{}]"):
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {level.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, levels)]
    return "\n".join(lines)


def test_aliases_are_read():
    assert load_yaml("a: &x [1, 2]\nb: *x", "a.yaml") == {"a": [1, 2], "b": [1, 2]}
    assert load_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}", "a.yaml")["c"] == {"b": 1, "d": 2}
    assert load_yaml("", "a.yaml") is None
    assert len(load_yaml(bomb(4), "a.yaml")["a3"]) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [ls]", "line 1: not a YAML file .*python/object/apply:os.system"),
        (bomb(9), r"aliases \(\*name\) expand to .* values, more than 1,000,000"),
        (bomb(9, "{k: v}", "{{<<: [{}]}}"), r"aliases \(\*name\) expand to"),
        ("names: &a [*a]", "line 1: not a YAML file .a value contains itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "1" * 5000, "not a YAML file"),
        ("a: \x00", "not a YAML file"),
        ("? [a]\n: b", "not a YAML file .found unhashable key"),
        ("a: 2026-13-45", "not a YAML file"),
    ],
    ids=["tag", "bomb", "merges", "endless", "deep", "number", "control", "key", "date"],
)
def test_one_line(text, message):
    start = time.monotonic()
    with pytest.raises(InputError, match=message) as caught:
        load_yaml(text, "a.yaml")
    assert str(caught.value).startswith("a.yaml")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 20
