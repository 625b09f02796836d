"""Curves are drawn in their axes and reduced if long; histograms and bars have the right number of bars."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    bar_chart,
    histogram,
    line_chart,
    scalar_points,
)

INSIDE = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)


def points_of(path):
    return [tuple(map(float, point.split(","))) for point in path.removeprefix("M").split("L")]


def test_a_line_from_corner_to_corner():
    chart = line_chart("F1", [("a", [(0, 0), (1, 1)])], x_range=(0, 1), y_range=(0, 1), diagonal=True)
    line = chart.lines[0]
    assert points_of(line.path) == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)] == line.dots
    assert chart.diagonal == line.path
    assert [label for _, label in chart.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert chart.shows_course
    assert not line_chart("AP", [("a", [(0, 1.0)]), ("b", [(0, 2.0)])]).shows_course
    assert (line.xs, line.ys) == ("0 1", "0 1")


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios():
    chart = line_chart("loss", [("a", [(0, 100.0), (1, 10.0), (2, 1.0)])], log=True)
    ys = [y for _, y in points_of(chart.lines[0].path)]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.11)
    assert {"1", "10", "100"} <= {label for _, label in chart.y_ticks}


def test_curves_that_cannot_be_drawn_are_left_out_and_colours_stay():
    nan, inf = float("nan"), float("inf")
    chart = line_chart("loss", [("none", [(0, nan)]), ("some", [(0, 1.0), (1, inf), (2, 0.0), (3, 2.0)])], log=True)
    assert [(line.name, line.color, line.xs) for line in chart.lines] == [("some", 1, "0 3")]
    assert line_chart("loss", [("none", [(0, nan)]), ("empty", [])]) is None


def test_long_curves_keep_their_mean_and_short_ones_every_point():
    chart = line_chart("loss", [("long", [(i, i % 5) for i in range(10_000)]), ("short", [(0, 1.0)] * 5)])
    long, short = chart.lines
    assert len(points_of(long.path)) == 400
    assert set(long.ys.split()) == {"2"}
    assert not long.dots
    assert len(short.dots) == 5


def test_labels_stay_short():
    chart = line_chart("lr", [("lr", [(0, 0.0), (90_000, 0.00075)])])
    assert max(len(label) for _, label in chart.x_ticks + chart.y_ticks) <= 6
    assert "60k" in [label for _, label in chart.x_ticks]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(1e-6, 1e6)), min_size=1, max_size=30, unique_by=lambda p: p[0]),
    st.booleans(),
)
def test_all_is_drawn_inside_of_the_axes(points, log):
    chart = line_chart("a", [("a", sorted(points))], log=log)
    places = points_of(chart.lines[0].path)
    places += [(place, TOP) for place, _ in chart.x_ticks] + [(LEFT, place) for place, _ in chart.y_ticks]
    left, right, top, bottom = INSIDE
    assert all(math.isfinite(x) and left - 0.1 <= x <= right + 0.1 for x, _ in places)
    assert all(math.isfinite(y) and top - 0.1 <= y <= bottom + 0.1 for _, y in places)


def test_scalars_become_points():
    assert scalar_points([{"iteration": 3, "a": 1.0}, {"iteration": 4, "b": 2}, {"iteration": 5, "a": None}], "a") == [
        (3, 1.0)
    ]


def test_histograms_have_a_bar_for_each_whole_number():
    svg = histogram([1, 1, 2, 4], xlabel="objects", ylabel="images")
    assert svg.startswith("<svg")
    assert ">objects</text>" in svg
    assert svg.count("clip-path") - histogram([1], xlabel="objects", ylabel="images").count("clip-path") >= 3
    assert histogram([], xlabel="a", ylabel="b") == ""
    assert histogram([5.0], xlabel="a", ylabel="b", log=True).startswith("<svg")


def test_at_most_forty_bars_are_drawn_the_largest_first():
    svg = bar_chart({f"class {index}": index for index in range(50)}, xlabel="objects")
    assert ">class 49<" in svg
    assert ">class 10<" in svg
    assert ">class 9<" not in svg
    assert bar_chart({"$x$": 1}, xlabel="objects").count("$x$") == 1, "no formula"
    assert bar_chart({}, xlabel="objects") == ""
