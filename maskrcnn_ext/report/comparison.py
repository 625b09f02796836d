"""The HTML page that compares runs: one HTML file that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_ext.report.charts import line_chart, scalar_points
from maskrcnn_ext.report.run import TASKS, Run, precision_by_task, time_and_memory
from maskrcnn_ext.report.template import write_page

# Keys that differ between any two runs and mean nothing.
_IGNORED_KEYS = {"train.output_dir"}
_NO_VALUE = "\N{EN DASH}"
# Title of a chart: name of the scalar, and whether its axis is logarithmic.
_CHARTS = {
    "Loss": ("total_loss", True),
    "Validation loss": ("validation_loss/total_loss", True),
    "AP of masks": ("segm/AP", False),
    "AP of boxes": ("bbox/AP", False),
    "AP of keypoints": ("keypoints/AP", False),
    "Learning rate": ("lr", False),
    "Seconds per iteration": ("time", False),
}


@dataclass(frozen=True)
class ComparedRun:
    """A run to compare.

    Attributes:
        name: short and unique among the compared runs.
        run: from :func:`maskrcnn_ext.report.run.read_run`.
        tasks: metrics by task of its evaluation; {} without one.
    """

    name: str
    run: Run
    tasks: dict[str, Any]


def write_comparison(
    runs: Sequence[ComparedRun],
    differences: Sequence[dict[str, Any]],
    page: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
) -> Path:
    """Writes the page that compares runs.

    Args:
        runs: two runs or more.
        differences: results of :func:`maskrcnn_ext.evaluation.bootstrap.compare` of the first run with others, each with the ``name`` of
            the other run.
        page: the file to write.
        title: of the page.
        notes: lines at the top of the page.

    Returns:
        `page`.

    Raises:
        InputError: the page cannot be written.
    """
    precision = [precision_by_task(compared.run, compared.tasks) for compared in runs]
    charts = [
        line_chart(title, [(own.name, scalar_points(own.run.scalars, scalar)) for own in runs], log=log)
        for title, (scalar, log) in _CHARTS.items()
    ]
    return write_page(
        page,
        "comparison.html",
        title=title,
        notes=notes,
        names=[compared.name for compared in runs],
        tasks=TASKS,
        overview=_overview(runs, precision),
        charts=[chart for chart in charts if chart],
        averages={task: _align([by_task.get(task, {}) for by_task in precision]) for task in TASKS},
        classes={task: _class_ap(runs, task) for task in TASKS},
        differences=differences,
        settings=_different_settings(runs),
    )


def _overview(runs: Sequence[ComparedRun], precision: list[dict[str, dict[str, float | None]]]) -> dict[str, Any]:
    """Returns one row for each run; columns without any value are left out."""
    tasks = [task for task in TASKS if any(task in by_task for by_task in precision)]
    figures = [time_and_memory(compared.run) for compared in runs]
    columns = list(dict.fromkeys(name for of_run in figures for name in of_run))
    rows = [
        {
            "name": compared.name,
            "AP": [by_task.get(task, {}).get("AP") for task in tasks],
            "figures": [of_run.get(column, _NO_VALUE) for column in columns],
            "started": compared.run.started or _NO_VALUE,
        }
        for compared, by_task, of_run in zip(runs, precision, figures, strict=True)
    ]
    return {"tasks": tasks, "columns": columns, "rows": rows}


def _align(of_runs: Sequence[dict[str, float | None]]) -> list[tuple[str, list[float | None]]]:
    """Returns for each name the values of all runs; None if a run does not have it."""
    names = dict.fromkeys(name for values in of_runs for name in values)
    return [(name, [values.get(name) for values in of_runs]) for name in names]


def _class_ap(runs: Sequence[ComparedRun], task: str) -> list[tuple[str, list[float | None]]]:
    """Returns the AP of each class in all runs."""
    return _align([{row["class"]: row["AP"] for row in own.tasks.get(task, {}).get("per_class", [])} for own in runs])


def _different_settings(runs: Sequence[ComparedRun]) -> dict[str, list[tuple[str, list[str]]]]:
    """Returns the configuration values that differ: ``of_all`` for keys that all runs have, ``of_some`` for the others."""
    of_runs = [compared.run.settings() for compared in runs]
    different: dict[str, list[tuple[str, list[str]]]] = {"of_all": [], "of_some": []}
    for key in dict.fromkeys(key for settings in of_runs for key in settings if key not in _IGNORED_KEYS):
        values = [settings.get(key, _NO_VALUE) for settings in of_runs]
        if len(set(values)) > 1:
            different["of_all" if all(key in settings for settings in of_runs) else "of_some"].append((key, values))
    return different
