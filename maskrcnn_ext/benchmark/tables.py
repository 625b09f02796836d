"""What a benchmark has found, as Markdown, JSON and bars."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One side.

    Attributes:
        side: its name.
        seconds: of its runs; none where only memory or other values were measured.
        values: what else was measured, by the heading of its column.
    """

    side: str
    seconds: list[float] = field(default_factory=list)
    values: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The sides of one case.

    Attributes:
        title: what was measured.
        rows: the first is the one that the others' ratios refer to.
        note: what a reader must know beside.
    """

    title: str
    rows: list[Row]
    note: str = ""

    @classmethod
    def of_times(cls, title: str, seconds: dict[str, list[float]], note: str = "") -> Table:
        """The result of :func:`maskrcnn_ext.benchmark.measuring.measure`."""
        return cls(title, [Row(side, times) for side, times in seconds.items()], note)

    def ratios(self) -> dict[str, float]:
        """How many times as fast as the first row each row is, by medians; of rows with times."""
        timed = {row.side: statistics.median(row.seconds) for row in self.rows if row.seconds}
        first = self.rows[0].side
        return {side: timed[first] / median for side, median in timed.items()} if first in timed else {}

    def as_markdown(self) -> str:
        """Returns the table under its title."""
        ratios = self.ratios()
        more = list(dict.fromkeys(heading for row in self.rows for heading in row.values))
        headings = ["", *(["median", "from", "to", "times as fast"] if ratios else []), *more]
        lines = [f"### {self.title}", "", f"| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
        for row in self.rows:
            cells = [row.side]
            if ratios:
                spread = (statistics.median(row.seconds), min(row.seconds), max(row.seconds)) if row.seconds else ()
                cells += [_seconds(value) for value in spread] or ["", "", ""]
                cells.append(f"{ratios[row.side]:.2f}" if row.side in ratios else "")
            cells += [_told(row.values.get(heading, "")) for heading in more]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, *(["", self.note] if self.note else [])])

    def as_dict(self) -> dict[str, Any]:
        """Returns all that was measured, with the medians and ratios."""
        return {**asdict(self), "times_as_fast": self.ratios()}


def draw(tables: list[Table], file: Path) -> None:
    """Draws a bar for every ratio, one group a table."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [(table, table.ratios()) for table in tables if len(table.ratios()) > 1]
    if not shown:
        return
    heights = [len(ratios) + 1.2 for _, ratios in shown]
    figure = Figure(figsize=(9, 0.24 * sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (table, ratios) in zip(panels, shown, strict=True):
        bars = axes.barh(list(ratios), list(ratios.values()), color=["0.6", *["tab:blue"] * (len(ratios) - 1)])
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
        axes.invert_yaxis()
        axes.set_title(f"{table.title}: times as fast", fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.margins(x=0.1)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=90)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _told(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
