"""The HTML page of a run: one self-contained file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskrcnn_ext.report.chart import Chart, line_chart, of_scalars
from maskrcnn_ext.report.pictures import Evaluated
from maskrcnn_ext.report.run import TASKS, Run
from maskrcnn_ext.report.sections import task_section
from maskrcnn_ext.report.template import write_page

_SETTINGS = {
    "model": "model._target_",
    "backbone": "model.backbone.bottom_up._target_",
    "depth": "model.backbone.bottom_up.stages.depth",
    "RoI heads": "model.roi_heads._target_",
    "mask head": "model.roi_heads.mask_head._target_",
    "mask pooler": "model.roi_heads.mask_pooler._target_",
    "classes": "model.roi_heads.num_classes",
    "start": "train.init_checkpoint",
    "training data": "dataloader.train.dataset.names",
    "validation data": "dataloader.test.dataset.names",
    "images an iteration": "dataloader.train.total_batch_size",
    "iterations": "train.max_iter",
    "optimizer": "optimizer._target_",
    "learning rate": "optimizer.lr",
    "weight decay": "optimizer.weight_decay",
    "schedule": "lr_multiplier.scheduler._target_",
    "mixed precision": "train.amp.enabled",
    "average of weights (EMA)": "train.ema.decay",
    "seed": "train.seed",
    "device": "train.device",
}


def write_report(run: Run, evaluated: Evaluated | None, page: Path, *, title: str, note: str = "") -> Path:
    """Writes the page of a run.

    Args:
        run: from :func:`maskrcnn_ext.report.run.read_run`.
        evaluated: its predictions and what they are worth; None leaves out all that is made of them.
        page: the file to write.
        title: the page's title.
        note: one line to stand at the top, such as why there is no evaluation.

    Returns:
        `page`.

    Raises:
        InputError: the page cannot be written.
    """
    summary: dict[str, Any] = evaluated.summary if evaluated else {"tasks": {}, "settings": {}, "data": {}}
    measured = {task: summary["tasks"][task] for task in TASKS if task in summary["tasks"]}
    main = next(iter(measured), None)
    return write_page(
        page,
        "page.html",
        title=title,
        subtitle=" · ".join(filter(None, [run.started, str(run.manifest.get("status", "")), _commit(run)])),
        notes=[text for text in (note, *_differences(run, measured)) if text],
        tasks=TASKS,
        precision=precision(run, measured),
        figures=figures(run),
        measured=measured,
        data=summary["data"],
        used=summary["settings"],
        sections={task: task_section(found) for task, found in measured.items()},
        logged_classes={} if measured else _logged_classes(run),
        charts=[chart for chart in _curves(run) if chart],
        galleries=evaluated.galleries(main) if evaluated and main else {},
        main=main,
        settings=_settings(run),
        environment=_environment(run),
        config_text=run.config_text,
    )  # fmt: skip


def precision(run: Run, measured: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Returns AP, AP50, AP75, AR, and AP of small, medium and large objects, by task: of the evaluation, or else what training logged."""
    if not measured:
        logged = [task for task in TASKS if f"{task}/AP" in run.results]
        names = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AP small": "APs", "AP medium": "APm", "AP large": "APl"}
        return {task: {name: run.results.get(f"{task}/{own}") for name, own in names.items()} for task in logged}
    return {
        task: {name: measured[task][name] for name in ("AP", "AP50", "AP75", "AR")}
        | {f"AP {area['name']}": area["AP"] for area in measured[task]["areas"]}
        for task in measured
    }


def figures(run: Run) -> dict[str, str]:
    """Returns time and memory in words; only what is known."""
    found: dict[str, str] = {}
    if run.iterations:
        found["iterations"] = f"{run.iterations:,}"
    if run.training_seconds:
        minutes, seconds = divmod(run.training_seconds, 60)
        found["training time"] = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if run.seconds_per_iteration:
        found["an iteration (median)"] = duration(run.seconds_per_iteration)
    if run.inference_seconds:
        found["inference of a batch"] = duration(run.inference_seconds)
    if run.gpu_memory:
        found["GPU memory, peak"] = f"{run.gpu_memory[-1][1] / 1024:.1f} GiB"
    return found


def duration(seconds: float) -> str:
    """Returns a short time in words."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _curves(run: Run) -> list[Chart | None]:
    def chart(title: str, names: dict[str, str], *, log: bool = False) -> Chart | None:
        return line_chart(title, [(label, of_scalars(run.scalars, name)) for name, label in names.items()], log=log)

    losses = sorted({name for line in run.scalars for name in line if name.startswith("loss_")})
    return [
        chart("Loss", {"total_loss": "training", "validation_loss/total_loss": "validation"}, log=True),
        chart("Parts of the loss", {name: name.removeprefix("loss_") for name in losses}, log=True),
        chart("AP", {f"{task}/{kind}": f"{kind} of {TASKS[task]}" for task in TASKS for kind in ("AP", "AP50")}),
        chart("Learning rate", {"lr": "learning rate"}),
        chart("Seconds of an iteration", {"time": "in all", "data_time": "waiting for data"}),
        line_chart("GPU memory, peak (MiB)", [("memory", run.gpu_memory)]),
    ]


def _differences(run: Run, measured: dict[str, Any]) -> list[str]:
    """Where training has logged another AP than is told here, which makes a reader wonder."""
    logged = [(task, run.results.get(f"{task}/AP"), own["AP"]) for task, own in measured.items()]
    return [
        f"The AP of {TASKS[task]} is {own:.1f} here and {theirs:.1f} in the run's log: here all detections of an image count, and "
        "those of the results file as it is now."
        for task, theirs, own in logged
        if theirs is not None and own is not None and abs(theirs - own) >= 0.05
    ]


def _logged_classes(run: Run) -> dict[str, dict[str, float]]:
    """AP of a class by task, as training has logged it."""
    found: dict[str, dict[str, float]] = {}
    for name, value in run.results.items():
        task, _, metric = name.partition("/AP-")
        if metric:
            found.setdefault(metric, {})[task] = value
    return found


def _settings(run: Run) -> dict[str, str]:
    """What most people ask of a configuration."""
    values = run.settings()
    found = {}
    for label, key in _SETTINGS.items():
        if values.get(key) not in (None, "", "None"):
            found[label] = values[key].rpartition(".")[2] if key.endswith("_target_") else values[key]
    return found


def _environment(run: Run) -> dict[str, str]:
    versions, machine = run.manifest.get("versions") or {}, run.manifest.get("machine") or {}
    gpus = [gpu.get("name", "") for gpu in machine.get("gpus") or []]
    found = {
        "machine": machine.get("name"),
        "processor": machine.get("cpu") and f"{machine['cpu']}, {machine.get('cores')} cores, {machine.get('threads')} threads",
        "memory": machine.get("memory_bytes") and f"{machine['memory_bytes'] / 2**30:.0f} GiB",
        "GPUs": ", ".join(gpus) or (machine and "none"),
        "system": machine.get("system"),
        "processes": run.manifest.get("world_size"),
        "git commit": _commit(run),
        "data": ((run.manifest.get("data") or {}).get("hash") or "")[:12],
        **versions,
    }  # fmt: skip
    return {name: str(value) for name, value in found.items() if value}


def _commit(run: Run) -> str:
    git = run.manifest.get("git")
    if not git:
        return ""
    return f"commit {git['commit'][:10]}" + (" with changes" if git.get("dirty") else "")
