"""The summary of an evaluation as files to read: JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_PER_CLASS = ("class", "objects", "AP", "AP50", "AP75", "AR", "precision", "recall", "F1")
_PER_IMAGE = ("image_id", "file_name", "objects", "true_positives", "false_positives", "missed", "F1", "quality")


def write_tables(summary: dict[str, Any], folder: Path) -> list[Path]:
    """Writes ``evaluation.json``, ``evaluation.md`` and, of each task, ``<task>_classes.csv``, ``_images.csv`` and ``_confusion.csv``.

    Args:
        summary: what :func:`maskrcnn_ext.evaluation.summary.evaluate` returns.
        folder: made if it is not there; files of these names are replaced.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "evaluation.json", folder / "evaluation.md"]
    files[0].write_text(json.dumps(summary, allow_nan=False), encoding="utf-8")
    files[1].write_text(markdown(summary), encoding="utf-8")
    for task, found in summary["tasks"].items():
        labels = found["confusion"]["labels"]
        rows_of = {
            "classes": [
                (*_PER_CLASS, "best_score", "best_F1", "ECE"),
                *(
                    (*_values(row, _PER_CLASS), *_values(row["best"], ("score", "F1")), row["ECE"])
                    for row in found["per_class"]
                ),
            ],
            "images": [_PER_IMAGE, *(_values(row, _PER_IMAGE) for row in found["images"])],
            "confusion": [
                ("object", *labels),
                *((label, *row) for label, row in zip(labels, found["confusion"]["counts"], strict=True)),
            ],
        }
        for name, rows in rows_of.items():
            files.append(folder / f"{task}_{name}.csv")
            with files[-1].open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows(rows)
    return files


def markdown(summary: dict[str, Any]) -> str:
    """Returns the overview, and the classes of each task."""
    parts = ["# Evaluation", overview(summary)]
    for task, found in summary["tasks"].items():
        rows = [(*_values(row, _PER_CLASS), *_values(row["best"], ("score", "F1"))) for row in found["per_class"]]
        parts += [f"## {task}: classes", table((*_PER_CLASS, "best score", "best F1"), rows)]
    return "\n\n".join(parts) + "\n"


def overview(summary: dict[str, Any]) -> str:
    """Returns what is said of all classes, as Markdown tables."""
    tasks = summary["tasks"]
    data, settings = summary["data"], summary["settings"]
    averages = ("AP", "AP50", "AP75", "AR")
    chosen = ("precision", "recall", "F1")
    kinds = list(next(iter(tasks.values()))["errors"]["delta_AP"]) if tasks else []
    parts = [
        f"{data['images']} images, {data['objects']} objects, {data['crowds']} crowds, {data['results']} detections",
        table(
            ("task", *averages, *(f"AP {area}" for area in ("small", "medium", "large"))),
            [(task, *_values(own, averages), *(area["AP"] for area in own["areas"])) for task, own in tasks.items()],
        ),
        f"At IoU {settings['iou']:g}, with detections of a score of {settings['score_threshold']:g} and more:",
        table(
            ("task", *chosen, "best score", "its F1", "ECE"),
            [
                (
                    task,
                    *_values(own["at_threshold"], chosen),
                    *_values(own["best"], ("score", "F1")),
                    own["calibration"]["ECE"],
                )
                for task, own in tasks.items()
            ],
        ),
        "AP that each kind of error costs:",
        table(("task", *kinds), [(task, *_values(own["errors"]["delta_AP"], kinds)) for task, own in tasks.items()]),
    ]
    for own in (own["nuclei"] for own in tasks.values() if "nuclei" in own):
        parts += ["Masks without overlaps, mean over images:", table(tuple(own), [tuple(own.values())])]
    return "\n\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table with aligned columns; a dash stands where there is no value."""
    cells = [[str(name) for name in header], *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """Makes of numpy's values what ``json.dumps`` takes, and None of what is no finite number."""
    if isinstance(value, dict):
        return {key: plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(own) for own in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _values(row: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value).replace("|", "\\|")
