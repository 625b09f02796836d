"""The HTML page of a run, and the part of it that shows one task: tables, curves and bars."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.report.charts import LineChart, line_chart, scalar_points, svg_path
from maskrcnn_ext.report.judgement import sum_up
from maskrcnn_ext.report.pictures import ERRORS, EvaluatedRun
from maskrcnn_ext.report.run import TASKS, Run, precision_by_task, time_and_memory
from maskrcnn_ext.report.template import write_page

_SETTINGS = {
    "model": "model._target_",
    "backbone": "model.backbone.bottom_up._target_",
    "depth": "model.backbone.bottom_up.stages.depth",
    "RoI heads": "model.roi_heads._target_",
    "mask head": "model.roi_heads.mask_head._target_",
    "mask pooler": "model.roi_heads.mask_pooler._target_",
    "classes": "model.roi_heads.num_classes",
    "initial weights": "train.init_checkpoint",
    "training data": "dataloader.train.dataset.names",
    "validation data": "dataloader.test.dataset.names",
    "images per iteration": "dataloader.train.total_batch_size",
    "iterations": "train.max_iter",
    "optimizer": "optimizer._target_",
    "learning rate": "optimizer.lr",
    "weight decay": "optimizer.weight_decay",
    "schedule": "lr_multiplier.scheduler._target_",
    "mixed precision on a GPU": "train.amp.enabled",
    "mixed precision on a CPU": "train.amp.on_cpu",
    "average of weights (EMA)": "train.ema.decay",
    "seed": "train.seed",
    "device": "train.device",
}
_MAX_CURVES = 8  # classes in one chart; the page has as many colours
_MAX_MATRIX = 20  # classes of a confusion matrix; the others are summed
_MAX_CONFUSIONS = 15
_UNIT_RANGE = (0.0, 1.0)
_MIN_DIFFERENCE = 0.05  # of AP, in percent, that is visible on the page
_CLASS_ERRORS = {"classification", "both"}


def write_report(run: Run, evaluated: EvaluatedRun | None, page: Path, *, title: str, note: str = "") -> Path:
    """Writes the page of a run: one HTML file that needs no other file.

    Args:
        run: from :func:`maskrcnn_ext.report.run.read_run`.
        evaluated: the run's predictions and their metrics; without them, the page has no error analysis and no pictures.
        page: the file to write.
        title: of the page.
        note: a line at the top, such as why there is no evaluation.

    Returns:
        `page`.

    Raises:
        InputError: the page cannot be written.

    Example:
        ::

            write_report(read_run(Path("output")), None, Path("report.html"), title="baseline")
    """
    summary: dict[str, Any] = evaluated.summary if evaluated else {"tasks": {}, "settings": {}, "data": {}}
    measured = {task: summary["tasks"][task] for task in TASKS if task in summary["tasks"]}
    main_task = next(iter(measured), None)
    return write_page(
        page,
        "page.html",
        title=title,
        subtitle=" · ".join(filter(None, [run.started, str(run.manifest.get("status", "")), _commit(run)])),
        judgement=sum_up(run, evaluated) if evaluated and main_task else [],
        notes=[text for text in (note, *_ap_differences(run, measured)) if text],
        tasks=TASKS,
        precision=precision_by_task(run, measured),
        figures=time_and_memory(run),
        measured=measured,
        data=summary["data"],
        used=summary["settings"],
        sections={task: _task_section(metrics) for task, metrics in measured.items()},
        logged_classes={} if measured else _logged_classes(run),
        charts=[chart for chart in _training_charts(run) if chart and chart.shows_course],
        galleries=evaluated.galleries(main_task) if evaluated and main_task else {},
        main=main_task,
        settings=_main_settings(run),
        environment=_environment(run),
        config_text=run.config_text,
        commands=_next_commands(run),
    )


def _next_commands(run: Run) -> list[str]:
    folder = shlex.quote(str(run.folder))
    return [
        f"maskrcnn-ext predict {folder} IMAGES -o predictions",
        f"maskrcnn-ext compare {folder} OTHER_RUN",
        f"maskrcnn-ext export {folder} --to onnx -o {shlex.quote(run.folder.resolve().name)}.onnx",
    ]


def _training_charts(run: Run) -> list[LineChart | None]:
    def chart(title: str, names: dict[str, str], *, log: bool = False) -> LineChart | None:
        return line_chart(title, [(label, scalar_points(run.scalars, name)) for name, label in names.items()], log=log)

    losses = sorted({name for line in run.scalars for name in line if name.startswith("loss_")})
    return [
        chart("Loss", {"total_loss": "training", "validation_loss/total_loss": "validation"}, log=True),
        chart("Parts of the loss", {name: name.removeprefix("loss_") for name in losses}, log=True),
        chart("AP", {f"{task}/{kind}": f"{kind} of {TASKS[task]}" for task in TASKS for kind in ("AP", "AP50")}),
        chart("Learning rate", {"lr": "learning rate"}),
        chart("Seconds per iteration", {"time": "total", "data_time": "waiting for data"}),
        line_chart("Peak GPU memory (MiB)", [("memory", run.gpu_memory)]),
    ]


def _ap_differences(run: Run, measured: dict[str, Any]) -> list[str]:
    """Explains for each task why its AP on the page differs from the logged AP, if it does."""
    logged = [(task, run.results.get(f"{task}/AP"), metrics["AP"]) for task, metrics in measured.items()]
    return [
        f"The AP of {TASKS[task]} is {shown:.1f} here and {in_log:.1f} in the run's log: this page counts all detections of an image, "
        "and it uses the results file as it is now."
        for task, in_log, shown in logged
        if in_log is not None and shown is not None and abs(in_log - shown) >= _MIN_DIFFERENCE
    ]


def _logged_classes(run: Run) -> dict[str, dict[str, float]]:
    """Returns the logged AP of each class by task."""
    found: dict[str, dict[str, float]] = {}
    for name, value in run.results.items():
        task, _, class_name = name.partition("/AP-")
        if class_name:
            found.setdefault(class_name, {})[task] = value
    return found


def _main_settings(run: Run) -> dict[str, str]:
    """Returns the values of the configuration that most readers look for, by label."""
    values = run.settings()
    found = {}
    for label, key in _SETTINGS.items():
        if values.get(key) not in (None, "", "None"):
            found[label] = values[key].rpartition(".")[2] if key.endswith("_target_") else values[key]
    return found


def _environment(run: Run) -> dict[str, str]:
    versions, machine = run.manifest.get("versions") or {}, run.manifest.get("machine") or {}
    gpus = [gpu.get("name", "") for gpu in machine.get("gpus") or []]
    cores = f"{machine.get('cores')} cores, {machine.get('threads')} threads"
    found = {
        "machine": machine.get("name"),
        "processor": machine.get("cpu") and f"{machine['cpu']}, {cores}",
        "memory": machine.get("memory_bytes") and f"{machine['memory_bytes'] / 2**30:.0f} GiB",
        "GPUs": ", ".join(gpus) or (machine and "none"),
        "system": machine.get("system"),
        "processes": run.manifest.get("world_size"),
        "git commit": _commit(run),
        "data": ((run.manifest.get("data") or {}).get("hash") or "")[:12],
        **versions,
    }
    return {name: str(value) for name, value in found.items() if value}


def _commit(run: Run) -> str:
    git = run.manifest.get("git")
    if not git:
        return ""
    return f"commit {git['commit'][:10]}" + (" with changes" if git.get("dirty") else "")


def _task_section(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns what ``page.html`` shows of a task, from the metrics of :func:`maskrcnn_ext.evaluation.summary.evaluate`."""
    recall, curves = metrics["curves"]["recall"], metrics["curves"]["precision"]["0.50"]
    sparks = [
        svg_path((round(x, 3), round(1 - y, 3)) for x, y in zip(recall, curve, strict=True)) if curve else ""
        for curve in curves
    ]
    sizes_text = "Side of the object in pixels (square root of its area); each range has the same number of objects"
    return {
        "classes": [{**row, "spark": spark} for row, spark in zip(metrics["per_class"], sparks, strict=True)],
        "charts": [_precision_recall_chart(metrics), _threshold_chart(metrics), _calibration_chart(metrics)],
        "bars": [
            ("Errors", "AP gained if they were corrected (TIDE), and their number at any score", _error_bars(metrics)),
            ("AP by size", sizes_text, _size_bars(metrics)),
            ("Scores", "Number of detections: blue are right, orange are wrong", _score_bars(metrics)),
        ],
        "confusion": _confusion_matrix(metrics["confusion"]),
        "at_threshold": metrics["at_threshold"],
        "best": metrics["best"],
        "ECE": metrics["calibration"]["ECE"],
        "nuclei": metrics.get("nuclei", {}),
    }


def _precision_recall_chart(metrics: dict[str, Any]) -> LineChart | None:
    recall, names = metrics["curves"]["recall"], [row["class"] for row in metrics["per_class"]]
    curves = metrics["curves"]["precision"]
    if 1 < len(names) <= _MAX_CURVES:
        title = "Precision by recall, IoU 0.50"
        series = list(zip(names, curves["0.50"], strict=True))
    else:
        title = "Precision by recall" if len(names) == 1 else "Precision by recall, mean of the classes"
        series = [(f"IoU {level}", _mean_curve(by_class)) for level, by_class in curves.items()]
    drawn = [(name, list(zip(recall, curve, strict=True)) if curve else []) for name, curve in series]
    return line_chart(title, drawn, xlabel="recall", x_range=_UNIT_RANGE, y_range=_UNIT_RANGE)


def _mean_curve(curves: Sequence[Sequence[float] | None]) -> list[float]:
    known = [curve for curve in curves if curve]
    return [sum(column) / len(known) for column in zip(*known, strict=True)]


def _threshold_chart(metrics: dict[str, Any]) -> LineChart | None:
    """Draws precision, recall and F1 by score threshold.

    The thresholds are the lower ends of the calibration's bins, where the values are exact, and the best threshold.
    """
    positives = metrics["at_threshold"]["true_positives"] + metrics["at_threshold"]["missed"]
    hits = kept = 0.0
    points: list[tuple[float, float, float]] = []
    for score_bin in reversed(metrics["calibration"]["bins"]):
        kept += score_bin["count"]
        hits += score_bin["count"] * (score_bin["precision"] or 0.0)
        if kept and positives:
            points.append((score_bin["low"], hits / kept, hits / positives))
    best = metrics["best"]
    if best["score"] is not None:
        points.append((best["score"], best["precision"], best["recall"]))
    points.sort()
    series = {
        "precision": [(score, precision) for score, precision, _ in points],
        "recall": [(score, recall) for score, _, recall in points],
        "F1": [(score, 2 * p * r / (p + r) if p + r else 0.0) for score, p, r in points],
    }
    title = "By score threshold" + (f": F1 is best at {best['score']:.2f}" if best["score"] is not None else "")
    return line_chart(title, series.items(), xlabel="score threshold", x_range=_UNIT_RANGE, y_range=_UNIT_RANGE)


def _calibration_chart(metrics: dict[str, Any]) -> LineChart | None:
    points = [(each["score"], each["precision"]) for each in metrics["calibration"]["bins"] if each["count"]]
    title, series = "Calibration: are scores probabilities?", [("precision", points)]
    return line_chart(title, series, xlabel="score", x_range=_UNIT_RANGE, y_range=_UNIT_RANGE, diagonal=True)


def _error_bars(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    deltas, counts = metrics["errors"]["delta_AP"], metrics["errors"]["counts"]
    largest = max((delta for delta in deltas.values() if delta is not None), default=0.0)
    one_class = len(metrics["per_class"]) == 1
    return [
        {
            "name": name,
            "value": f"{deltas[kind]:.1f}" + (f" ({counts[kind]:,})" if kind in counts else ""),
            "parts": [(_share(deltas[kind], largest), "--wrong" if kind in counts else "--s7")],
        }
        for kind, name in ERRORS.items()
        if deltas.get(kind) is not None and not (one_class and kind in _CLASS_ERRORS)
    ]


def _size_bars(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for area_bin in metrics["area_bins"]:
        low, high = math.sqrt(area_bin["low"]), area_bin["high"] and math.sqrt(area_bin["high"])
        if area_bin["AP"] is not None:
            name = f"{low:.0f} to {high:.0f}" if high else f"from {low:.0f}"
            rows.append({"name": name, "value": f"{area_bin['AP']:.1f}", "parts": [(area_bin["AP"] / 100, "--s0")]})
    return rows


def _score_bars(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    bins = metrics["calibration"]["bins"]
    largest = max(score_bin["count"] for score_bin in bins)
    rows = []
    for score_bin in reversed(bins if largest else []):
        right = score_bin["count"] * (score_bin["precision"] or 0.0)
        parts = [(_share(right, largest), "--right"), (_share(score_bin["count"] - right, largest), "--wrong")]
        name = f"{score_bin['low']:.1f} to {score_bin['high']:.1f}"
        rows.append({"name": name, "value": f"{score_bin['count']:,}", "parts": parts})
    return rows


def _confusion_matrix(confusion: dict[str, Any]) -> dict[str, Any]:
    """Returns the matrix and the list of the most frequent confusions.

    If there are too many classes, those with the most confusions are shown and the others are summed.
    """
    labels, counts = confusion["labels"], confusion["counts"]
    classes = range(len(labels) - 1)
    confusions = [sum(row[i] + counts[i][j] for j, row in enumerate(counts) if j != i) for i in classes]
    shown = sorted(sorted(classes, key=lambda index: -confusions[index])[:_MAX_MATRIX])
    groups = [[index] for index in shown]
    others = [index for index in classes if index not in set(shown)]
    groups += [others] if others else []
    groups.append([len(labels) - 1])
    names = [labels[group[0]] if group is not others else f"{len(others)} others" for group in groups]
    rows = []
    for group, name in zip(groups, names, strict=True):
        row = [sum(counts[i][j] for i in group for j in column) for column in groups]
        shares = [_share(count, sum(row)) for count in row]
        rows.append((name, list(zip(row, shares, (column is group for column in groups), strict=True))))
    pairs = [
        (counts[i][j], labels[i], labels[j], _share(counts[i][j], sum(counts[i])))
        for i in classes
        for j in classes
        if i != j and counts[i][j]
    ]
    return {"names": names, "rows": rows, "pairs": sorted(pairs, key=lambda pair: -pair[0])[:_MAX_CONFUSIONS]}


def _share(part: float, whole: float) -> float:
    return max(0.0, part / whole) if whole > 0 else 0.0
