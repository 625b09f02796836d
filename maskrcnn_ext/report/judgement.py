"""Sums an evaluation up in three sentences: missed and wrong objects, the error that costs most, and whether longer training would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.report.charts import scalar_points
from maskrcnn_ext.report.pictures import EvaluatedRun
from maskrcnn_ext.report.run import TASKS, Run

# A change of AP, in percent, that is within the noise of a training.
_FLAT = 0.5
_FLAT_SHARE = 0.1  # of AP: 0.2 points are a rise at an AP of 1, and not at 30
_NOTHING = 1.0  # AP below which a model is of no use
_FEW_IMAGES = 10
_SIZES = {"small": "below 32 x 32 pixels", "medium": "of 32 x 32 to 96 x 96 pixels", "large": "above 96 x 96 pixels"}
_CAUSES = {
    "localisation": "Outlines that do not fit cost most",
    "both": "Detections of another class at the wrong place cost most",
    "duplicate": "Objects that are found twice cost most",
    "background": "Detections where no object is cost most",
    "missed": "Objects that are not found cost most",
}


def sum_up(run: Run, evaluated: EvaluatedRun) -> list[str]:
    """Returns the main AP of a run with its interval, and the sentences of :func:`judge`.

    Args:
        run: from :func:`maskrcnn_ext.report.run.read_run`.
        evaluated: its predictions and their metrics.

    Example::

        print(*sum_up(read_run(folder), evaluated))
    """
    task = evaluated.main_task
    metrics = evaluated.summary["tasks"][task]
    # Iterations are counted from 0 in the file, and from 1 on the page of a training.
    history = [(min(index + 1, run.iterations), value) for index, value in scalar_points(run.scalars, f"{task}/AP")]
    return [_headline(metrics["AP"], evaluated, TASKS[task]), *judge(metrics, history)]


def _headline(ap: float | None, evaluated: EvaluatedRun, what: str) -> str:
    if ap is None:
        return f"No AP of {what}."
    interval = "" if evaluated.interval is None else " (95 % interval {:.1f} to {:.1f})".format(*evaluated.interval)
    few = ", too few to rely on" if len(evaluated.images) < _FEW_IMAGES else ""
    return f"AP of {what}: {ap:.1f}{interval} on {plural(len(evaluated.images), 'image')}{few}."


def judge(metrics: Mapping[str, Any], history: Sequence[tuple[float, float]]) -> list[str]:
    """Returns sentences about the results of one task; the third, about the course of the training, needs a `history`. One without objects.

    Args:
        metrics: of the task, of :func:`maskrcnn_ext.evaluation.summary.evaluate`.
        history: the AP of each evaluation during training, with the number of iterations before it, in order.

    Example::

        for sentence in judge(summary["tasks"]["segm"], [(100, 20.1), (200, 31.4)]):
            print(sentence)
    """
    found = metrics["at_threshold"]
    if not found["true_positives"] + found["missed"]:
        return ["The validation images have no objects, so nothing can be judged."]
    return [_counts(metrics), _main_error(metrics), *([_trend(history)] if history else [])]


def _counts(metrics: Mapping[str, Any]) -> str:
    found = metrics["at_threshold"]
    objects = found["true_positives"] + found["missed"]
    detections = found["true_positives"] + found["false_positives"]
    missed = f"{_percent(found['missed'], objects)} of the {plural(objects, 'object')} were missed"
    if objects == 1:
        missed = f"The only object was {'missed' if found['missed'] else 'found'}"
    if not detections:
        return f"{missed}: no detection has a high enough score."
    worst = _worst_size(metrics)
    wrong = f"{_percent(found['false_positives'], detections)} of the {plural(detections, 'detection')} are wrong"
    if detections == 1:
        wrong = f"the only detection is {'wrong' if found['false_positives'] else 'right'}"
    return f"{missed}{worst}, and {wrong}."


def _worst_size(metrics: Mapping[str, Any]) -> str:
    """Returns the range of sizes with the lowest recall, if it is far below the best one."""
    sizes = [row for row in metrics.get("areas", ()) if row["objects"] and row["AR"] is not None]
    if len(sizes) < 2:
        return ""
    low, high = (choose(sizes, key=lambda row: row["AR"]) for choose in (min, max))
    return f", most of all those {_SIZES[low['name']]}" if low["AR"] < high["AR"] / 2 else ""


def _main_error(metrics: Mapping[str, Any]) -> str:
    costs = {
        kind: cost
        for kind, cost in metrics["errors"]["delta_AP"].items()
        if kind in {*_CAUSES, "classification"} and cost
    }
    if not costs:
        return "No kind of error dominates."
    kind = max(costs, key=lambda name: costs[name])
    if kind == "classification":
        return f"{_confused_pair(metrics['confusion'])} ({costs[kind]:.1f} points of AP)."
    return f"{_CAUSES[kind]} ({costs[kind]:.1f} points of AP)."


def _confused_pair(confusion: Mapping[str, Any]) -> str:
    names, counts = confusion["labels"][:-1], confusion["counts"]
    pairs = [
        (counts[row][column], row, column) for row in range(len(names)) for column in range(len(names)) if row != column
    ]
    count, row, column = max(pairs, default=(0, 0, 0))
    if not count:
        return "Wrong classes cost most, at scores below the threshold"
    return f"Wrong classes cost most: {names[row]} is taken for {names[column]} {plural(count, 'time')} of {sum(counts[row])}"


def _trend(history: Sequence[tuple[float, float]]) -> str:
    history = list(dict(history).items())  # a finished run that is evaluated again repeats its last iteration
    values = [value for _, value in history]
    if len(values) < 2:
        return "One evaluation does not show whether AP still rises."
    best = max(range(len(values)), key=lambda index: values[index])
    if values[best] < _NOTHING:
        return "The model has learnt next to nothing: train longer, and look at the labels (maskrcnn-ext browse-data)."
    gain = values[-1] - values[-2]
    if best == len(values) - 1 and gain > min(_FLAT, _FLAT_SHARE * values[best]):
        shown = round(values[-1], 1) - round(values[-2], 1)
        return f"AP still rises ({shown:+.1f} since iteration {history[-2][0]:g}): train longer."
    if values[best] - values[-1] > _FLAT:
        return (
            f"AP was highest after iteration {history[best][0]:g} ({values[best]:.1f}) and has fallen since: more images help more than "
            "longer training."
        )
    return "AP no longer rises: more images, or larger ones, help more than longer training."


def _percent(part: float, whole: float) -> str:
    share = f"{100 * part / whole:.0f} %"
    if 0 < part < whole and share in ("0 %", "100 %"):
        return "under 1 %" if share == "0 %" else "over 99 %"
    return share
