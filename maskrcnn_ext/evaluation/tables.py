"""Writes the summary of an evaluation as JSON, CSV and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.tables import csv_table, markdown_table
from maskrcnn_ext.common.text import plural

_PER_CLASS = ("class", "objects", "AP", "AP50", "AP75", "AR", "precision", "recall", "F1")
_PER_IMAGE = ("image_id", "file_name", "objects", "true_positives", "false_positives", "missed", "F1", "quality")


def write_tables(summary: dict[str, Any], folder: Path, *, slices: Sequence[dict[str, Any]] = ()) -> list[Path]:
    """Writes ``evaluation.json``, ``evaluation.md`` and, for each task, ``<task>_classes.csv``, ``_images.csv`` and ``_confusion.csv``.

    Args:
        summary: what :func:`maskrcnn_ext.evaluation.summary.evaluate` returns.
        slices: what :func:`maskrcnn_ext.evaluation.slices.evaluate_slices` returns, for ``slices.csv``.
        folder: made if it does not exist; files of these names are replaced.

    Returns:
        The files.

    Raises:
        InputError: a file cannot be written.
    """
    contents = {"evaluation.json": json.dumps(summary, allow_nan=False), "evaluation.md": summary_markdown(summary)}
    for task, metrics in summary["tasks"].items():
        labels = metrics["confusion"]["labels"]
        confusion = zip(labels, metrics["confusion"]["counts"], strict=True)
        contents[f"{task}_classes.csv"] = csv_table(
            (*_PER_CLASS, "best_score", "best_F1", "ECE"),
            [
                (*_select(row, _PER_CLASS), *_select(row["best"], ("score", "F1")), row["ECE"])
                for row in metrics["per_class"]
            ],
        )
        contents[f"{task}_images.csv"] = csv_table(_PER_IMAGE, [_select(row, _PER_IMAGE) for row in metrics["images"]])
        contents[f"{task}_confusion.csv"] = csv_table(("object", *labels), [(label, *row) for label, row in confusion])
    if slices:
        contents["slices.csv"] = csv_table(tuple(slices[0]), [tuple(row.values()) for row in slices])
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def summary_markdown(summary: dict[str, Any]) -> str:
    """Returns the overview and a table of the classes for each task."""
    parts = ["# Evaluation", overview(summary)]
    for task, metrics in summary["tasks"].items():
        rows = [(*_select(row, _PER_CLASS), *_select(row["best"], ("score", "F1"))) for row in metrics["per_class"]]
        parts += [f"## {task}: classes", metric_table((*_PER_CLASS, "best score", "best F1"), rows)]
    return "\n\n".join(parts) + "\n"


def overview(summary: dict[str, Any]) -> str:
    """Returns the metrics of all classes together as Markdown tables."""
    tasks, data, settings = summary["tasks"], summary["data"], summary["settings"]
    averages, rates = ("AP", "AP50", "AP75", "AR"), ("precision", "recall", "F1")
    error_kinds = list(next(iter(tasks.values()))["errors"]["delta_AP"]) if tasks else []
    parts = [
        ", ".join(
            plural(data[key], noun)
            for key, noun in (("images", "image"), ("objects", "object"), ("crowds", "crowd"), ("results", "detection"))
        ),
        metric_table(
            ("task", *averages, *(f"AP {area}" for area in ("small", "medium", "large"))),
            [
                (task, *_select(metrics, averages), *(area["AP"] for area in metrics["areas"]))
                for task, metrics in tasks.items()
            ],
        ),
        f"At IoU {settings['iou']:g}, detections with a score of at least {settings['score_threshold']:g}:",
        metric_table(
            ("task", *rates, "best score", "its F1", "ECE"),
            [
                (
                    task,
                    *_select(metrics["at_threshold"], rates),
                    *_select(metrics["best"], ("score", "F1")),
                    metrics["calibration"]["ECE"],
                )
                for task, metrics in tasks.items()
            ],
        ),
        "AP that each kind of error costs:",
        metric_table(
            ("task", *error_kinds),
            [(task, *_select(metrics["errors"]["delta_AP"], error_kinds)) for task, metrics in tasks.items()],
        ),
    ]
    lvis = {task: metrics["lvis"] for task, metrics in tasks.items() if "lvis" in metrics}
    if lvis:
        names = tuple(next(iter(lvis.values())))
        rows = [(task, *_select(metrics, names)) for task, metrics in lvis.items()]
        parts += [
            "By the rules of LVIS, classes that are verified in an image only:",
            metric_table(("task", *names), rows),
        ]
    for nuclei in (metrics["nuclei"] for metrics in tasks.values() if "nuclei" in metrics):
        parts += ["Masks without overlaps, mean over images:", metric_table(tuple(nuclei), [tuple(nuclei.values())])]
    return "\n\n".join(parts)


def slice_table(slices: Sequence[dict[str, Any]]) -> str:
    """Returns a Markdown table of the metrics of slices, AP with its 95 % interval."""
    shown = [{key: value for key, value in row.items() if key not in ("low", "high")} for row in slices]
    for row, cells in zip(slices, shown, strict=True):
        if row["low"] is not None:
            cells["AP"] = f"{row['AP']:.2f} ({row['low']:.1f} to {row['high']:.1f})"
    return metric_table(tuple(shown[0]), [tuple(row.values()) for row in shown])


def metric_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table of names and numbers; a dash is written for None.

    Example:
        >>> print(metric_table(("task", "AP", "ECE"), [("segm", 41.25, None)]))
        | task   | AP    | ECE   |
        |:-------|:------|:------|
        | segm   | 41.25 | -     |
    """
    return markdown_table([[_cell(value) for value in row] for row in rows], headers)


def to_json_values(value: Any) -> Any:
    """Converts NumPy's types to those that ``json.dumps`` accepts, and nan and infinity to None.

    Example:
        >>> to_json_values({"AP": np.float64(41.5), "AR": float("nan"), "counts": np.arange(2)})
        {'AP': 41.5, 'AR': None, 'counts': [0, 1]}
    """
    if isinstance(value, dict):
        return {key: to_json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json_values(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _select(row: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)
