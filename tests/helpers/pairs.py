"""A part of all pairs by default, and the rest as slow tests."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pytest


def pairs(ones: Sequence[str], others: Sequence[str], *, every: int, always: Container[str] = ()) -> list:
    """Returns all pairs as parameters of a test.

    By default run those with one of `always`, and each `every`-th of the rest along both sequences, so that each of `ones` and
    `others` is in some.
    """
    return [
        pytest.param(one, other, marks=[] if one in always or (row + column) % every == 0 else pytest.mark.slow)
        for row, one in enumerate(ones)
        for column, other in enumerate(others)
    ]
