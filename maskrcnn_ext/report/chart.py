"""The geometry of line charts, which ``parts.html`` draws as inline SVG in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Units of the SVG's viewBox: on a phone, one is about a pixel.
WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 16, 8, 38
_MAX_POINTS = 400  # of a line; more are averaged
_MAX_DOTS = 25  # lines of fewer points show each

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: for legend and pointer.
        path: SVG's, in units of the viewBox.
        dots: where its points are; none of a long line.
        xs, ys: the values of its points, as text, for the pointer.
        color: index into the page's colours.
    """

    name: str
    path: str
    dots: list[tuple[float, float]]
    xs: str
    ys: str
    color: int


@dataclass(frozen=True)
class Chart:
    """A chart: its axes' ticks as (place, label), and its lines."""

    title: str
    xlabel: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    diagonal: str = ""
    size: dict[str, int] = field(
        default_factory=lambda: {"w": WIDTH, "h": HEIGHT, "l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM}
    )


def line_chart(
    title: str,
    series: Iterable[tuple[str, Points]],
    *,
    xlabel: str = "iteration",
    log: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> Chart | None:
    """Lays out curves.

    Args:
        title: what the vertical axis shows.
        series: names and points by rising x; what is not finite, or on a logarithmic axis not above 0, is left out. A name's place in
            the series is its colour, whether or not it has points.
        xlabel: what the horizontal axis shows.
        log: logarithmic vertical axis.
        x_range: of the axis; None for that of the points.
        y_range: the same.
        diagonal: draw y = x from 0 to 1.

    Returns:
        None without any point.
    """
    drawn = [(index, name, _thin(_drawable(points, log))) for index, (name, points) in enumerate(series)]
    drawn = [line for line in drawn if line[2]]
    if not drawn:
        return None
    values = [point for _, _, points in drawn for point in points]
    x_axis = _Axis(x_range or _span((x for x, _ in values), air=0.0), LEFT, WIDTH - RIGHT, log=False)
    y_axis = _Axis(y_range or _span((y for _, y in values), log=log), HEIGHT - BOTTOM, TOP, log=log)
    lines = []
    for index, name, points in drawn:
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in points]
        xs, ys = (" ".join(f"{value:.4g}" if column else f"{value:g}" for value in own)
                  for column, own in enumerate(zip(*points, strict=True)))  # fmt: skip
        lines.append(Line(name, path(places), places if len(places) <= _MAX_DOTS else [], xs, ys, index))
    ends = path((x_axis.place(value), y_axis.place(value)) for value in (0.0, 1.0)) if diagonal else ""
    return Chart(title, xlabel, x_axis.ticks(), y_axis.ticks(), lines, ends)


def of_scalars(scalars: list[dict[str, Any]], name: str) -> Points:
    """Returns one of a run's scalars over the iterations."""
    return [(line["iteration"], line[name]) for line in scalars if isinstance(line.get(name), int | float)]


def path(points: Iterable[tuple[float, float]]) -> str:
    """Returns what an SVG path's ``d`` is for a line through points."""
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


class _Axis:
    """From values to units of the viewBox."""

    def __init__(self, span: tuple[float, float], start: float, end: float, *, log: bool) -> None:
        self._span, self._start, self._length, self._log = span, start, end - start, log
        self._low, self._high = (self._scaled(value) for value in span)

    def place(self, value: float) -> float:
        return round(self._start + (self._scaled(value) - self._low) / (self._high - self._low) * self._length, 1)

    def ticks(self) -> list[tuple[float, str]]:
        from matplotlib.ticker import LogLocator, MaxNLocator

        # Less than two decades need more than their ends.
        subs = (1.0,) if self._high - self._low > 2 else (1.0, 2.0, 5.0)
        locator = LogLocator(subs=subs) if self._log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        values = [float(value) for value in locator.tick_values(*self._span)]
        slack = 1e-6 * (self._high - self._low)
        return [
            (self.place(value), _label(value))
            for value in values
            if (not self._log or value > 0) and self._low - slack <= self._scaled(value) <= self._high + slack
        ]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else value


def _label(value: float) -> str:
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value / 1000:g}k" if abs(value) >= 10000 else f"{value:.6g}"


def _span(values: Iterable[float], *, log: bool = False, air: float = 0.05) -> tuple[float, float]:
    """The range of values, with some air, and never empty."""
    own = list(values)
    low, high = min(own), max(own)
    if log:
        return low / 1.1, high * 1.1
    margin = air * (high - low) if high > low else 0.1 * abs(high) or 1.0
    return low - margin if low else 0.0, high + margin


def _drawable(points: Points, log: bool) -> Points:
    return [(x, y) for x, y in points if math.isfinite(y) and (not log or y > 0)]


def _thin(points: Points) -> Points:
    step = math.ceil(len(points) / _MAX_POINTS)
    if step <= 1:
        return points
    parts = [points[start : start + step] for start in range(0, len(points), step)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
