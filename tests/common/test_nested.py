"""Values that share parts are counted without being written out."""

from maskrcnn_ext.common.nested import count_values


def test_shared_parts_are_counted_each_time():
    value: list = [1]
    for _ in range(60):
        value = [value, value]
    assert count_values(value) == 2**60 * 2 + 2**60 - 1
    assert count_values({"a": (1, 2), "b": "text"}) == 5
