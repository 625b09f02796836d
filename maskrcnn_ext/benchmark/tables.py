"""The results of a benchmark as Markdown, JSON and bar charts."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.files import atomic_path
from maskrcnn_ext.common.tables import markdown_table

_OWN, _OWN_COLOR = "maskrcnn_ext", "#0072b2"  # in the names of sides; blue of Okabe and Ito


@dataclass(frozen=True)
class Row:
    """The measurements of one side.

    Attributes:
        side: name of the side.
        seconds: the times of its runs; empty if only other values were measured.
        values: other measurements, by column heading.
    """

    side: str
    seconds: list[float] = field(default_factory=list)
    values: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The measurements of all sides in one case.

    Attributes:
        title: the name of the measurement.
        rows: the sides; the ratios refer to the first.
        note: a note for the reader.

    Example:
        >>> print(Table.of_times("Sorting", {"slow": [0.4, 0.2], "fast": [0.1]}).as_markdown())
        ### Sorting
        <BLANKLINE>
        |      |   median |   from |     to |   times as fast |
        |:-----|---------:|-------:|-------:|----------------:|
        | slow |   300 ms | 200 ms | 400 ms |            1.00 |
        | fast |   100 ms | 100 ms | 100 ms |            3.00 |
    """

    title: str
    rows: list[Row]
    note: str = ""

    @classmethod
    def of_times(cls, title: str, seconds: dict[str, list[float]], note: str = "") -> Table:
        """Makes a table of the result of :func:`maskrcnn_ext.benchmark.measuring.measure`."""
        return cls(title, [Row(side, times) for side, times in seconds.items()], note)

    def ratios(self) -> dict[str, float]:
        """Returns how many times as fast as the first row each row with times is, by medians."""
        timed = {row.side: statistics.median(row.seconds) for row in self.rows if row.seconds}
        first = self.rows[0].side
        return {side: timed[first] / median for side, median in timed.items()} if first in timed else {}

    def as_markdown(self) -> str:
        """Returns the title, the table and the note as Markdown."""
        ratios = self.ratios()
        headings = list(dict.fromkeys(heading for row in self.rows for heading in row.values))
        rows = []
        for row in self.rows:
            cells = [row.side]
            if ratios:
                spread = (statistics.median(row.seconds), min(row.seconds), max(row.seconds)) if row.seconds else ()
                cells += [_format_seconds(value) for value in spread] or ["", "", ""]
                cells.append(f"{ratios[row.side]:.2f}" if row.side in ratios else "")
            rows.append([*cells, *(_format_value(row.values.get(heading, "")) for heading in headings)])
        times = ["median", "from", "to", "times as fast"] if ratios else []
        align = ["left"] + ["right"] * (len(times) + len(headings))
        table = markdown_table(rows, ["", *times, *headings], align=align)
        return "\n\n".join(filter(None, [f"### {self.title}", table, self.note]))

    def as_dict(self) -> dict[str, Any]:
        """Returns all measurements and the ratios, as JSON types."""
        return {**asdict(self), "times_as_fast": self.ratios()}


def draw(tables: list[Table], file: Path) -> None:
    """Draws a bar chart of the ratios, one panel per table, to an image file. The bars of the package are blue and named in bold."""
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
        own = [_OWN in side for side in ratios]
        bars = axes.barh(list(ratios), list(ratios.values()), color=[_OWN_COLOR if mine else "0.72" for mine in own])
        labels = axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
        for mine, label, tick in zip(own, labels, axes.get_yticklabels(), strict=True):
            for text in (label, tick):
                text.set_fontweight("bold" if mine else "normal")
        axes.invert_yaxis()
        axes.set_title(f"{table.title}: times as fast", fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.margins(x=0.1)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(file) as partial:
        figure.savefig(partial, dpi=90)


def _format_seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _format_value(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
