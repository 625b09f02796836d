"""Charts of the pages: line charts as data for ``parts.html``, which draws them as SVG, and histograms and bars as ready SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskrcnn_ext.common.text import printable

# Units of the SVG's viewBox; on a phone, one is about a pixel.
WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 16, 8, 38
_MAX_POINTS = 400  # of a curve; more are averaged
_MAX_DOTS = 25  # curves with at most this many points show each
_GREY = "#888888"  # axes and text: readable on a light and on a dark page
_BAR_COLOR = "#3b8fe0"
_MAX_BARS = 40

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One curve of a chart.

    Attributes:
        name: for the legend.
        path: the ``d`` of an SVG path, in units of the viewBox.
        dots: positions of its points; empty for a long curve.
        xs: x values of its points, separated by spaces, which the page shows at the pointer.
        ys: y values, likewise.
        color: index into the page's colours.
    """

    name: str
    path: str
    dots: list[tuple[float, float]]
    xs: str
    ys: str
    color: int


@dataclass(frozen=True)
class LineChart:
    """A chart with curves; ticks are (position, label), `diagonal` is the path of y = x or "".

    `shows_course` is whether any curve has two points or more.
    """

    title: str
    xlabel: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Curve]
    diagonal: str = ""
    shows_course: bool = True
    size: dict[str, int] = field(
        default_factory=lambda: {"w": WIDTH, "h": HEIGHT, "l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM}
    )


def line_chart(
    title: str,
    series: Iterable[tuple[str, Points]],
    *,
    xlabel: str = "iteration",
    log: bool = False,
    log_x: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    joined: bool = True,
) -> LineChart | None:
    """Lays out curves.

    Args:
        title: the quantity on the vertical axis.
        series: names and points by ascending x. Points that are not finite, or not above 0 on a logarithmic axis, are left out. The colour
            of a curve is its position in the series, even if other curves have no points.
        xlabel: the quantity on the horizontal axis.
        log: whether the vertical axis is logarithmic.
        log_x: whether the horizontal axis is logarithmic; x values are then above 0.
        x_range: of the axis; by default that of the points.
        y_range: of the axis; by default that of the points.
        diagonal: whether to draw y = x from 0 to 1.
        joined: whether lines join the points of a curve; if not, all points are drawn.

    Returns:
        The chart; None without any point.

    Example:
        >>> chart = line_chart("loss", [("training", [(0, 2.0), (100, 1.0)])])
        >>> [label for _, label in chart.x_ticks]
        ['0', '20', '40', '60', '80', '100']
    """
    drawn = [
        (index, name, _reduce(_drawable(points, log)) if joined else _drawable(points, log))
        for index, (name, points) in enumerate(series)
    ]
    drawn = [curve for curve in drawn if curve[2]]
    if not drawn:
        return None
    all_points = [point for _, _, points in drawn for point in points]
    x_axis = _Axis(
        x_range or _padded_range((x for x, _ in all_points), log=log_x, padding=0.0), LEFT, WIDTH - RIGHT, log=log_x
    )
    y_axis = _Axis(y_range or _padded_range((y for _, y in all_points), log=log), HEIGHT - BOTTOM, TOP, log=log)
    curves = []
    for index, name, points in drawn:
        positions = [(x_axis.position(x), y_axis.position(y)) for x, y in points]
        xs, ys = " ".join(f"{x:g}" for x, _ in points), " ".join(f"{y:.4g}" for _, y in points)
        dots = positions if not joined or len(positions) <= _MAX_DOTS else []
        # A path of moves draws nothing, but the page finds the points by it.
        path = svg_path(positions) if joined else svg_path(positions).replace("L", "M")
        curves.append(Curve(name, path, dots, xs, ys, index))
    corners = [(x_axis.position(value), y_axis.position(value)) for value in (0.0, 1.0)] if diagonal else []
    return LineChart(
        title,
        xlabel,
        x_axis.ticks(),
        y_axis.ticks(),
        curves,
        svg_path(corners) if corners else "",
        shows_course=any(len(points) > 1 for _, _, points in drawn),
    )


def scalar_points(scalars: list[dict[str, Any]], name: str) -> Points:
    """Returns one scalar of a run by iteration.

    Example:
        >>> scalar_points([{"iteration": 0, "lr": 0.1}, {"iteration": 1}], "lr")
        [(0, 0.1)]
    """
    return [(line["iteration"], line[name]) for line in scalars if isinstance(line.get(name), int | float)]


def svg_path(points: Iterable[tuple[float, float]]) -> str:
    """Returns the ``d`` of an SVG path through points.

    Example:
        >>> svg_path([(0, 1), (2.5, 3)])
        'M0,1L2.5,3'
    """
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


class _Axis:
    """Maps values to units of the viewBox."""

    def __init__(self, value_range: tuple[float, float], start: float, end: float, *, log: bool) -> None:
        self._range, self._start, self._length, self._log = value_range, start, end - start, log
        self._low, self._high = (self._scaled(value) for value in value_range)

    def position(self, value: float) -> float:
        return round(self._start + (self._scaled(value) - self._low) / (self._high - self._low) * self._length, 1)

    def ticks(self) -> list[tuple[float, str]]:
        from matplotlib.ticker import LogLocator, MaxNLocator

        # Below two decades, powers of ten would be one or two ticks.
        subs = (1.0,) if self._high - self._low > 2 else (1.0, 2.0, 5.0)
        locator = LogLocator(subs=subs) if self._log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        values = [float(value) for value in locator.tick_values(*self._range)]
        slack = 1e-6 * (self._high - self._low)
        return [
            (self.position(value), _tick_label(value))
            for value in values
            if (not self._log or value > 0) and self._low - slack <= self._scaled(value) <= self._high + slack
        ]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else value


def _tick_label(value: float) -> str:
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value / 1000:g}k" if abs(value) >= 10000 else f"{value:.6g}"


def _padded_range(values: Iterable[float], *, log: bool = False, padding: float = 0.05) -> tuple[float, float]:
    """Returns the range of values with some space around it; it is never empty."""
    known = list(values)
    low, high = min(known), max(known)
    if log:
        return low / 1.1, high * 1.1
    margin = padding * (high - low) if high > low else 0.1 * abs(high) or 1.0
    return low - margin if low else 0.0, high + margin


def _drawable(points: Points, log: bool) -> Points:
    return [(x, y) for x, y in points if math.isfinite(y) and (not log or y > 0)]


def _reduce(points: Points) -> Points:
    """Averages neighbouring points if there are too many."""
    step = math.ceil(len(points) / _MAX_POINTS)
    if step <= 1:
        return points
    parts = [points[start : start + step] for start in range(0, len(points), step)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def histogram(values: Sequence[float], *, xlabel: str, ylabel: str, log: bool = False) -> str:
    """Draws how often values occur.

    Args:
        values: numbers; above 0 if `log`.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
        log: whether the horizontal axis is logarithmic.

    Returns:
        An ``<svg>`` element with a transparent background, or "" without values.
    """
    if not len(values):
        return ""
    low, high = min(values), max(values)
    if log:
        edges = np.geomspace(low, max(high, 1.01 * low), 31)
    elif all(value == int(value) for value in values) and high - low < 60:
        edges = np.arange(low - 0.5, high + 1)  # one bar for each whole number
    else:
        edges = np.linspace(low, max(high, low + 1), 31)
    figure, axes = _new_figure()
    axes.hist(values, bins=edges, color=_BAR_COLOR)
    if log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return _to_svg(figure, axes, xlabel, ylabel)


def bar_chart(counts: Mapping[str, int], *, xlabel: str) -> str:
    """Draws a horizontal bar for each of the forty largest counts, the largest on top.

    Returns:
        An ``<svg>`` element, or "" without counts.
    """
    if not counts:
        return ""
    shown = sorted(counts.items(), key=lambda item: -item[1])[:_MAX_BARS]
    figure, axes = _new_figure(height=max(1.6, 0.8 + 0.22 * len(shown)))
    # By position, so that two classes of one name have a bar each. An unescaped dollar sign would start a formula.
    names = [printable(name).replace("$", r"\$") for name, _ in shown]
    axes.barh(range(len(shown)), [count for _, count in shown], color=_BAR_COLOR)
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    return _to_svg(figure, axes, xlabel, "")


def _new_figure(height: float = 2.8) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    # Text of 10 points is as many pixels on a phone, and half as much again in a column of a desktop.
    figure = Figure(figsize=(5.0, height), layout="constrained")
    return figure, figure.add_subplot()


def _to_svg(figure: Any, axes: Any, xlabel: str, ylabel: str) -> str:
    import matplotlib

    axes.set_xlabel(xlabel, color=_GREY)
    axes.set_ylabel(ylabel, color=_GREY)
    axes.tick_params(which="both", colors=_GREY)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    buffer = io.StringIO()
    # Text stays text. The salt keeps the ids of two figures on one page different.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": xlabel}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
