"""Curves of a run as inline SVG."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

_GREY = "#888888"  # axes and text: readable on a light and on a dark page


def plot(scalars: list[dict[str, Any]], names: list[str], *, ylabel: str, log: bool = False) -> str:
    """Draws scalars over iterations.

    Args:
        scalars: dicts with an "iteration" each, in order.
        names: the scalars to draw; one that never occurs is left out.
        ylabel: the vertical axis' label.
        log: logarithmic vertical axis.

    Returns:
        An ``<svg>`` element with a transparent ground, or "" when there is nothing to draw.
    """
    from matplotlib.figure import Figure

    series = {name: [(line["iteration"], line[name]) for line in scalars if name in line] for name in names}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    # No pyplot: it keeps figures in global state. Fonts stay text; the salt keeps the ids of two figures on one page apart.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": ylabel}):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for name, points in series.items():
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                linewidth=1.6,
                marker="o" if len(points) < 25 else None,
                markersize=3,
            )
        if log:
            axes.set_yscale("log")
        axes.set_xlabel("iteration", color=_GREY)
        axes.set_ylabel(ylabel, color=_GREY)
        axes.tick_params(which="both", colors=_GREY)
        axes.grid(alpha=0.25)
        for spine in axes.spines.values():
            spine.set_color(_GREY)
        axes.legend(frameon=False, labelcolor=_GREY, fontsize=8, ncols=2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
