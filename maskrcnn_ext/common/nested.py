"""The size of nested values in which one value may occur many times, as after ``b = [a, a]; c = [b, b]``."""

from __future__ import annotations

from typing import Any


def count_values(value: Any, known: dict[int, int] | None = None) -> int:
    """Returns the number of values in nested lists and dicts, each counted as often as it occurs.

    Args:
        value: without cycles.
        known: the counts of lists and dicts by their ``id``, filled in; pass one dict to count values that share parts. The values
            must be alive as long as it is used.

    Example:
        >>> a = [1]; b = [a, a]; c = {"x": b, "y": b}
        >>> count_values(c)
        11
    """
    known = {} if known is None else known
    if not isinstance(value, list | tuple | dict):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(count_values(part, known) for part in parts)
    return known[id(value)]
