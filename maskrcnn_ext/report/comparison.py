"""The HTML page that compares runs: one HTML file that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.report.charts import line_chart, scalar_points
from maskrcnn_ext.report.pictures import EvaluatedRun
from maskrcnn_ext.report.run import TASKS, Run, precision_by_task, time_and_memory
from maskrcnn_ext.report.template import write_page

# Keys that differ between any two runs and mean nothing.
_IGNORED_KEYS = {"train.output_dir"}
_NO_VALUE = "\N{EN DASH}"
_NUM_IMAGES = 6  # that the page shows
_MAX_PICTURES = 7  # runs whose predictions it shows
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
        evaluated: its predictions and their metrics; None without them.
    """

    name: str
    run: Run
    evaluated: EvaluatedRun | None

    @property
    def tasks(self) -> dict[str, Any]:
        """Metrics by task of its evaluation; {} without one."""
        return self.evaluated.summary["tasks"] if self.evaluated else {}


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
        line_chart(title, [(compared.name, scalar_points(compared.run.scalars, scalar)) for compared in runs], log=log)
        for title, (scalar, log) in _CHARTS.items()
    ]
    same_data = {
        own.name: own.evaluated for own in runs if own.evaluated and own.run.test_data == runs[0].run.test_data
    }
    return write_page(
        page,
        "comparison.html",
        title=title,
        judgement=[_verdict(own, runs[0].name) for own in differences],
        notes=notes,
        names=[compared.name for compared in runs],
        tasks=TASKS,
        overview=_overview(runs, precision),
        figures=_same_images(same_data) if len(same_data) > 1 else [],
        charts=[chart for chart in charts if chart and chart.shows_course],
        averages={task: _align([by_task.get(task, {}) for by_task in precision]) for task in TASKS},
        classes={task: _class_ap(runs, task) for task in TASKS},
        differences=differences,
        settings=_different_settings(runs),
    )


def _verdict(found: Mapping[str, Any], base: str) -> str:
    """Returns a sentence on the AP of a run in relation to that of the first."""
    row, name = found["metrics"][0], found["name"]
    if row["low"] is None:
        return f"{name} and {base} cannot be compared: {row['reason']}."
    what = f"AP of {TASKS[found['task']]}"
    change = f"{abs(row['difference']):.1f} {'higher' if row['difference'] > 0 else 'lower'}"
    interval = f"95 % interval {row['low']:+.1f} to {row['high']:+.1f}"
    if row["real"]:
        return f"The {what} of {name} is {change} than that of {base} ({interval})."
    return (
        f"Whether {name} is better than {base} cannot be decided: its {what} is {change} ({interval}; {row['reason']})."
    )


def _same_images(evaluated: Mapping[str, EvaluatedRun]) -> list[dict[str, Any]]:
    """Draws the images whose quality differs most between runs: the truth, where orange objects are missed by all, and each prediction."""
    runs = list(evaluated.values())[:_MAX_PICTURES]
    task = runs[0].main_task
    if any(task not in own.summary["tasks"] for own in runs):
        return []
    rows = list(zip(*(own.summary["tasks"][task]["images"] for own in runs), strict=True))
    rows = [row for row in rows if all(own["quality"] is not None for own in row)]
    rows.sort(key=lambda row: min(own["quality"] for own in row) - max(own["quality"] for own in row))
    figures = []
    for row in rows[:_NUM_IMAGES]:
        missed = set.intersection(*(set(own["not_found"]) for own in row))
        drawn = [own.image_figure({**of_run, "not_found": missed}, task) for own, of_run in zip(runs, row, strict=True)]
        truth = drawn[0]["pictures"][:1]
        predicted = [
            (f"{name}: quality {of_run['quality']:.2f}", picture)
            for name, of_run, figure in zip(evaluated, row, drawn, strict=False)
            for _, picture in figure["pictures"][1:]
        ]
        figures.append({**drawn[0], "caption": plural(row[0]["objects"], "object"), "pictures": truth + predicted})
    return figures


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
    rows = [compared.tasks.get(task, {}).get("per_class", []) for compared in runs]
    return _align([{row["class"]: row["AP"] for row in of_run} for of_run in rows])


def _different_settings(runs: Sequence[ComparedRun]) -> dict[str, list[tuple[str, list[str]]]]:
    """Returns the configuration values that differ: ``of_all`` for keys that all runs have, ``of_some`` for the others."""
    of_runs = [compared.run.settings() for compared in runs]
    different: dict[str, list[tuple[str, list[str]]]] = {"of_all": [], "of_some": []}
    for key in dict.fromkeys(key for settings in of_runs for key in settings if key not in _IGNORED_KEYS):
        values = [settings.get(key, _NO_VALUE) for settings in of_runs]
        if len(set(values)) > 1:
            different["of_all" if all(key in settings for settings in of_runs) else "of_some"].append((key, values))
    return different
