"""The part of a page that is about one task: tables, curves and bars of an evaluation's summary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from maskrcnn_ext.report.chart import Chart, line_chart, path

_MAX_CURVES = 8  # of classes in one chart; as many colours as the page has
_MAX_MATRIX = 20  # classes of a confusion matrix; the rest are taken together
_MAX_CONFUSIONS = 15
_UNIT = (0.0, 1.0)
_ERRORS = {
    "classification": "wrong class",
    "localisation": "wrong place",
    "both": "wrong class and place",
    "duplicate": "found twice",
    "background": "nothing there",
    "missed": "missed",
    "false_positive": "all wrong detections",
    "false_negative": "all that is not found",
}


def task_section(found: dict[str, Any]) -> dict[str, Any]:
    """Returns what ``page.html`` shows of a task.

    Args:
        found: of one task, see :func:`maskrcnn_ext.evaluation.summary.evaluate`.
    """
    curves = found["curves"]["precision"]["0.50"]
    sparks = [path((round(x, 3), round(1 - y, 3)) for x, y in zip(found["curves"]["recall"], own, strict=True)) if own else ""
              for own in curves]  # fmt: skip
    return {
        "classes": [{**row, "spark": spark} for row, spark in zip(found["per_class"], sparks, strict=True)],
        "charts": [_precision_recall(found), _thresholds(found), _calibration(found)],
        "bars": [
            ("Errors", "AP that would be gained without them (TIDE), and their number, whatever the score", _errors(found)),
            ("AP by size", "Side of the object in pixels (square root of the area); each range has as many objects",
             _sizes(found)),
            ("Scores", "Number of detections; blue are right, orange wrong", _scores(found)),
        ],
        "confusion": _confusion(found["confusion"]),
        "at_threshold": found["at_threshold"],
        "best": found["best"],
        "ECE": found["calibration"]["ECE"],
        "nuclei": found.get("nuclei", {}),
    }  # fmt: skip


def _precision_recall(found: dict[str, Any]) -> Chart | None:
    recall, names = found["curves"]["recall"], [row["class"] for row in found["per_class"]]
    curves = found["curves"]["precision"]
    if 1 < len(names) <= _MAX_CURVES:
        title = "Precision by recall, IoU 0.50"
        series = [(name, own) for name, own in zip(names, curves["0.50"], strict=True)]
    else:
        title = "Precision by recall" if len(names) == 1 else "Precision by recall, mean of the classes"
        series = [(f"IoU {level}", _mean_curve(own)) for level, own in curves.items()]
    drawn = [(name, list(zip(recall, own, strict=True)) if own else []) for name, own in series]
    return line_chart(title, drawn, xlabel="recall", x_range=_UNIT, y_range=_UNIT)


def _mean_curve(curves: Sequence[Sequence[float] | None]) -> list[float]:
    known = [own for own in curves if own]
    return [sum(column) / len(known) for column in zip(*known, strict=True)]


def _thresholds(found: dict[str, Any]) -> Chart | None:
    """Precision, recall and F1 at the lower ends of the calibration's bins, where they are exact, and at the best threshold."""
    positives = found["at_threshold"]["true_positives"] + found["at_threshold"]["missed"]
    hits = kept = 0.0
    points: list[tuple[float, float, float]] = []
    for own in reversed(found["calibration"]["bins"]):
        kept += own["count"]
        hits += own["count"] * (own["precision"] or 0.0)
        if kept and positives:
            points.append((own["low"], hits / kept, hits / positives))
    best = found["best"]
    if best["score"] is not None:
        points.append((best["score"], best["precision"], best["recall"]))
    points.sort()
    columns = {
        "precision": [(score, precision) for score, precision, _ in points],
        "recall": [(score, recall) for score, _, recall in points],
        "F1": [(score, 2 * p * r / (p + r) if p + r else 0.0) for score, p, r in points],
    }
    title = "By score threshold" + (f": F1 is best at {best['score']:.2f}" if best["score"] is not None else "")
    return line_chart(title, columns.items(), xlabel="least score", x_range=_UNIT, y_range=_UNIT)


def _calibration(found: dict[str, Any]) -> Chart | None:
    bins = [own for own in found["calibration"]["bins"] if own["count"]]
    points = [(own["score"], own["precision"]) for own in bins]
    return line_chart("Calibration: are scores probabilities?", [("share that is right", points)], xlabel="score",
                      x_range=_UNIT, y_range=_UNIT, diagonal=True)  # fmt: skip


def _errors(found: dict[str, Any]) -> list[dict[str, Any]]:
    deltas, counts = found["errors"]["delta_AP"], found["errors"]["counts"]
    largest = max((delta for delta in deltas.values() if delta is not None), default=0.0)
    return [
        {
            "name": name,
            "value": f"{deltas[kind]:.1f}" + (f" ({counts[kind]})" if kind in counts else ""),
            "parts": [(_share(deltas[kind], largest), "--wrong" if kind in counts else "--s7")],
        }
        for kind, name in _ERRORS.items()
        if deltas.get(kind) is not None
    ]


def _sizes(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for own in found["area_bins"]:
        low, high = math.sqrt(own["low"]), own["high"] and math.sqrt(own["high"])
        if own["AP"] is not None:
            name = f"{low:.0f} to {high:.0f}" if high else f"from {low:.0f}"
            rows.append({"name": name, "value": f"{own['AP']:.1f}", "parts": [(own["AP"] / 100, "--s0")]})
    return rows


def _scores(found: dict[str, Any]) -> list[dict[str, Any]]:
    bins = found["calibration"]["bins"]
    largest = max(own["count"] for own in bins)
    rows = []
    for own in reversed(bins if largest else []):
        right = own["count"] * (own["precision"] or 0.0)
        parts = [(_share(right, largest), "--right"), (_share(own["count"] - right, largest), "--wrong")]
        rows.append({"name": f"{own['low']:.1f} to {own['high']:.1f}", "value": own["count"], "parts": parts})
    return rows


def _confusion(confusion: dict[str, Any]) -> dict[str, Any]:
    """The matrix, of the classes with the most confusions where there are many, and the list of those."""
    labels, counts = confusion["labels"], confusion["counts"]
    classes = range(len(labels) - 1)
    mixed = [sum(row[own] + counts[own][other] for other, row in enumerate(counts) if other != own) for own in classes]
    chosen = sorted(sorted(classes, key=lambda own: -mixed[own])[:_MAX_MATRIX])
    groups = [[own] for own in chosen]
    rest = [own for own in classes if own not in set(chosen)]
    groups += [rest] if rest else []
    groups.append([len(labels) - 1])
    names = [labels[group[0]] if group is not rest else f"{len(rest)} others" for group in groups]
    rows = []
    for group, name in zip(groups, names, strict=True):
        own = [sum(counts[i][j] for i in group for j in column) for column in groups]
        shares = [_share(count, sum(own)) for count in own]
        rows.append((name, list(zip(own, shares, (column is group for column in groups), strict=True))))
    pairs = [(counts[i][j], labels[i], labels[j], _share(counts[i][j], sum(counts[i])))
             for i in classes for j in classes if i != j and counts[i][j]]  # fmt: skip
    return {"names": names, "rows": rows, "pairs": sorted(pairs, key=lambda pair: -pair[0])[:_MAX_CONFUSIONS]}


def _share(part: float, whole: float) -> float:
    return max(0.0, part / whole) if whole > 0 else 0.0
