"""Histograms and bars as inline SVG, in the style of the curves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_GREY = "#888888"  # axes and text: readable on a light and on a dark page
_BAR = "#3b8fe0"
_MAX_BARS = 40


def histogram(values: Sequence[float], *, xlabel: str, ylabel: str, log: bool = False) -> str:
    """Draws how often values occur.

    Args:
        values: numbers; above 0 if `log`.
        xlabel: the horizontal axis' label.
        ylabel: the vertical axis' label.
        log: logarithmic horizontal axis.

    Returns:
        An ``<svg>`` element with a transparent ground, or "" without values.
    """
    if not len(values):
        return ""
    low, high = min(values), max(values)
    if log:
        edges = np.geomspace(low, max(high, 1.01 * low), 31)
    elif all(value == int(value) for value in values) and high - low < 60:
        edges = np.arange(low - 0.5, high + 1)  # a bar a whole number
    else:
        edges = np.linspace(low, max(high, low + 1), 31)
    figure, axes = _figure()
    axes.hist(values, bins=edges, color=_BAR)
    if log:
        axes.set_xscale("log")
    return _svg(figure, axes, xlabel, ylabel)


def bars(counts: Mapping[str, int], *, xlabel: str) -> str:
    """Draws a horizontal bar a name, the largest on top; at most forty. Returns an ``<svg>`` element, or "" without names."""
    if not counts:
        return ""
    shown = sorted(counts.items(), key=lambda item: -item[1])[:_MAX_BARS]
    figure, axes = _figure(height=max(1.6, 0.8 + 0.22 * len(shown)))
    # Positions rather than names: two classes of one name have a bar each. A dollar sign would begin a formula.
    names = [name.replace("$", r"\$") for name, _ in shown]
    axes.barh(range(len(shown)), [count for _, count in shown], color=_BAR)
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    return _svg(figure, axes, xlabel, "")


def _figure(height: float = 3.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any, axes: Any, xlabel: str, ylabel: str) -> str:
    import matplotlib

    axes.set_xlabel(xlabel, color=_GREY)
    axes.set_ylabel(ylabel, color=_GREY)
    axes.tick_params(which="both", colors=_GREY)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    buffer = io.StringIO()
    # Fonts stay text; the salt keeps the ids of two figures on one page apart.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": xlabel}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
