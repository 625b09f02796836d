"""The HTML page that compares runs: one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_ext.report.chart import line_chart, of_scalars
from maskrcnn_ext.report.page import figures, precision
from maskrcnn_ext.report.run import TASKS, Run
from maskrcnn_ext.report.template import write_page

# What differs between any two runs, and says nothing.
_PLACES = {"train.output_dir"}
_NONE = "\N{EN DASH}"
_CURVES = {
    "Loss": ("total_loss", True),
    "Validation loss": ("validation_loss/total_loss", True),
    "AP of masks": ("segm/AP", False),
    "AP of boxes": ("bbox/AP", False),
    "AP of keypoints": ("keypoints/AP", False),
    "Learning rate": ("lr", False),
    "Seconds of an iteration": ("time", False),
}


@dataclass(frozen=True)
class Entry:
    """A run to compare.

    Attributes:
        name: short, and another one than the others'.
        run: from :func:`maskrcnn_ext.report.run.read_run`.
        tasks: of the summary of its evaluation; {} where there is none.
    """

    name: str
    run: Run
    tasks: dict[str, Any]


def write_comparison(
    entries: Sequence[Entry],
    differences: Sequence[dict[str, Any]],
    page: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
) -> Path:
    """Writes the page that compares runs.

    Args:
        entries: two runs or more.
        differences: of :func:`maskrcnn_ext.evaluation.bootstrap.compare`, each with the ``name`` of the run that the first is compared
            with.
        page: the file to write.
        title: the page's title.
        notes: lines to stand at the top.

    Returns:
        `page`.

    Raises:
        InputError: the page cannot be written.
    """
    of_runs = [precision(entry.run, entry.tasks) for entry in entries]
    charts = [
        line_chart(name, [(entry.name, of_scalars(entry.run.scalars, scalar)) for entry in entries], log=log)
        for name, (scalar, log) in _CURVES.items()
    ]
    return write_page(
        page,
        "comparison.html",
        title=title,
        notes=notes,
        names=[entry.name for entry in entries],
        tasks=TASKS,
        overview=_overview(entries, of_runs),
        charts=[chart for chart in charts if chart],
        averages={task: _averages([own.get(task, {}) for own in of_runs]) for task in TASKS},
        classes={task: _classes(entries, task) for task in TASKS},
        differences=differences,
        settings=_settings(entries),
    )


def _overview(entries: Sequence[Entry], of_runs: list[dict[str, dict[str, float | None]]]) -> dict[str, Any]:
    """A row a run; columns that no run fills are left out."""
    tasks = [task for task in TASKS if any(task in own for own in of_runs)]
    known = [figures(entry.run) for entry in entries]
    columns = list(dict.fromkeys(name for own in known for name in own))
    rows = [
        {
            "name": entry.name,
            "AP": [own.get(task, {}).get("AP") for task in tasks],
            "figures": [figures_of.get(column, _NONE) for column in columns],
            "started": entry.run.started or _NONE,
        }
        for entry, own, figures_of in zip(entries, of_runs, known, strict=True)
    ]
    return {"tasks": tasks, "columns": columns, "rows": rows}


def _averages(of_runs: list[dict[str, float | None]]) -> list[tuple[str, list[float | None]]]:
    names = dict.fromkeys(name for own in of_runs for name in own)
    return [(name, [own.get(name) for own in of_runs]) for name in names]


def _classes(entries: Sequence[Entry], task: str) -> list[tuple[str, list[float | None]]]:
    """AP by class, of the runs in their order."""
    of_runs = [{row["class"]: row["AP"] for row in entry.tasks.get(task, {}).get("per_class", [])} for entry in entries]
    return [
        (name, [own.get(name) for own in of_runs]) for name in dict.fromkeys(name for own in of_runs for name in own)
    ]


def _settings(entries: Sequence[Entry]) -> dict[str, list[tuple[str, list[str]]]]:
    """The values of the configurations that are not the same in all runs; apart, those that not all have."""
    of_runs = [entry.run.settings() for entry in entries]
    found: dict[str, list[tuple[str, list[str]]]] = {"of_all": [], "of_some": []}
    for key in dict.fromkeys(key for own in of_runs for key in own if key not in _PLACES):
        values = [own.get(key, _NONE) for own in of_runs]
        if len(set(values)) > 1:
            found["of_all" if all(key in own for own in of_runs) else "of_some"].append((key, values))
    return found
