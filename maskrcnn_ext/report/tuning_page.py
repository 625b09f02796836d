"""The HTML page of a tuning: its trials, what mattered, and AP by each quantity that was varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from maskrcnn_ext.report.charts import LineChart, bar_chart, line_chart
from maskrcnn_ext.report.template import write_page

Value = float | str


class Varied(NamedTuple):
    """A quantity that was varied: its name, its choices if it is no number, and whether its axis is logarithmic."""

    name: str
    choices: tuple[str, ...] = ()
    log: bool = False


class TrialRow(NamedTuple):
    """A trial: its name, the value of each quantity, the metric (None if it failed), whether it was ended early, and why it failed."""

    name: str
    values: Mapping[str, Value]
    value: float | None
    pruned: bool = False
    failure: str = ""


def write_tuning_page(
    varied: Sequence[Varied],
    trials: Sequence[TrialRow],
    importances: Mapping[str, float],
    page: Path,
    *,
    metric: str,
    title: str,
    best: str,
    overrides: Sequence[str],
) -> Path:
    """Writes the page: one HTML file that needs no other file.

    Args:
        varied: the settings that varied.
        trials: in their order.
        importances: share of each quantity in the result; empty if it is unknown.
        page: the file to write.
        metric: the metric that was maximised.
        title: of the page.
        best: name of the best trial.
        overrides: that the best trial sets.

    Returns:
        `page`.

    Raises:
        InputError: the page cannot be written.

    Example:
        >>> rows = [TrialRow("0", {"rate": 0.1}, 20.0), TrialRow("1", {"rate": 0.2}, 21.5)]
        >>> page = write_tuning_page(
        ...     [Varied("rate")], rows, {}, tmp_path / "page.html", metric="segm/AP", title="tune", best="1", overrides=["optimizer.lr=0.2"]
        ... )
        >>> "optimizer.lr=0.2" in page.read_text()
        True
    """
    progress = line_chart(f"{metric} by trial", _progress(trials), xlabel="trial")
    return write_page(
        page,
        "tuning_page.html",
        title=title,
        metric=metric,
        best=best,
        names=[quantity.name for quantity in varied],
        trials=trials,
        overrides=overrides,
        importances=bar_chart(
            {name: round(100 * share) for name, share in importances.items()},
            xlabel="importance for the better trials, in %",
        ),
        charts=[chart for chart in (progress, *(_slice(quantity, trials, metric) for quantity in varied)) if chart],
    )


def _progress(trials: Sequence[TrialRow]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Returns the metric of each trial, and the best of the whole ones so far."""
    values, best = [], []
    highest = float("-inf")
    for number, trial in enumerate(trials):
        if trial.value is None:
            continue
        values.append((float(number), trial.value))
        highest = highest if trial.pruned else max(highest, trial.value)
        best.append((float(number), highest))
    return [("trial", values), ("best so far", best)]


def _slice(quantity: Varied, trials: Sequence[TrialRow], metric: str) -> LineChart | None:
    """Returns the metric by one quantity. The positions of a quantity that is no number are its choices'."""
    position = {choice: float(index) for index, choice in enumerate(quantity.choices)}

    def points(pruned: bool) -> list[tuple[float, float]]:
        return sorted(
            (
                position[str(trial.values[quantity.name])] if quantity.choices else float(trial.values[quantity.name]),
                trial.value,
            )
            for trial in trials
            if trial.value is not None and trial.pruned == pruned
        )

    labels = ", ".join(f"{index}: {choice}" for index, choice in enumerate(quantity.choices))
    series = [("whole trials", points(False)), ("ended early", points(True))]
    return line_chart(
        f"{metric} by {quantity.name}", series, xlabel=labels or quantity.name, log_x=quantity.log, joined=False
    )
