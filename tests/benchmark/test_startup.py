"""The start of Python and of a model: every step has a time."""

import pytest

from tests.benchmark.conftest import SMALL, STOCK_AND_OURS, sides


@pytest.mark.slow
def test_every_step_is_measured(tables):
    commands, built, optimized, first, second = tables("startup", "--config", SMALL, "--size", "64x96")
    assert sides(commands)[0] == "python -c pass"
    assert [sides(table) for table in (built, first, second)] == [STOCK_AND_OURS] * 3
    assert sides(optimized) == ["maskrcnn_ext"]
