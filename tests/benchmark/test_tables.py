"""Tables: ratios and Markdown."""

import pytest

from maskrcnn_ext.benchmark.tables import Row, Table

TABLE = Table(
    "Sorting",
    [Row("slow", [0.4, 0.2, 0.3], {"MB": 1234.5}), Row("fast", [0.1, 0.1, 0.4], {"MB": 0.25}), Row("counted")],
    "Of one list.",
)


def test_ratios_are_of_medians_to_the_first_row():
    assert TABLE.ratios() == pytest.approx({"slow": 1.0, "fast": 3.0})
    assert Table("memory alone", [Row("one", values={"MB": 1.0})]).ratios() == {}


def test_markdown_has_median_spread_ratio_and_other_values():
    assert TABLE.as_markdown().splitlines() == [
        "### Sorting",
        "",
        "|         |   median |   from |     to |   times as fast |    MB |",
        "|:--------|---------:|-------:|-------:|----------------:|------:|",
        "| slow    |   300 ms | 200 ms | 400 ms |            1.00 | 1,234 |",
        "| fast    |   100 ms | 100 ms | 400 ms |            3.00 |  0.25 |",
        "| counted |          |        |        |                 |       |",
        "",
        "Of one list.",
    ]
