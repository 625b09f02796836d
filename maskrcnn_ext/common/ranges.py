"""Checks the range of arguments: anything but a number is outside of it, and no TypeError."""

from __future__ import annotations

from typing import Any


def is_share(value: Any, *, above_zero: bool = False) -> bool:
    """Returns whether a value is a number from 0 to 1.

    Args:
        value: of Python or NumPy, or a tensor with one element.
        above_zero: whether 0 is outside.

    Example:
        >>> is_share(1), is_share("1"), is_share(0, above_zero=True)
        (True, False, False)
    """
    return is_at_least(value, 0) and bool(value <= 1) and not (above_zero and value == 0)


def is_at_least(value: Any, least: float) -> bool:
    """Returns whether a value is a number that is not below another one.

    Example:
        >>> is_at_least(2, 1), is_at_least(None, 1), is_at_least(float("nan"), 1)
        (True, False, False)
    """
    try:
        return bool(value >= least)
    except (TypeError, ValueError, RuntimeError):  # no number; an array or a tensor of several
        return False
