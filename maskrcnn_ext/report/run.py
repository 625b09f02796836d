"""Reads the folder of a run: curves, results, configuration, manifest and log. The dataset is not read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.next_command import runs_near
from maskrcnn_ext.errors import InputError

RESULTS_FILE = "inference/coco_instances_results.json"
TASKS = {"segm": "masks", "keypoints": "keypoints", "bbox": "boxes"}  # the first of a run is the main one
_AVERAGE = "ema/"  # before the metrics of the averaged weights


@dataclass(frozen=True)
class Run:
    """The files of a run. Attributes of missing files are empty.

    Attributes:
        folder: the run's ``train.output_dir``.
        scalars: from ``metrics.json``: one dict for each logged iteration, each with its "iteration", in order.
        config: from ``config.yaml``: plain values, interpolations are not resolved.
        config_text: the text of ``config.yaml``.
        manifest: from ``manifest.json``.
        log: the text of ``log.txt``.
    """

    folder: Path
    scalars: list[dict[str, Any]]
    config: dict[str, Any]
    config_text: str
    manifest: dict[str, Any]
    log: str

    @cached_property
    def results(self) -> dict[str, float]:
        """Metrics of the evaluation whose predictions the run keeps, such as ``{"segm/AP": 41.2, "segm/AP-disc": 50.0}``.

        That is the last one, which is that of the average with ``train.ema``, or that of ``model_best`` with ``train.best.evaluate``.
        Empty before the first evaluation.
        """
        evaluations = [line for line in self.scalars if any(name.split("/")[0] in TASKS for name in line)]
        if not evaluations:
            return {}
        kept = evaluations[-1]
        of_average = any(name.startswith(_AVERAGE) for name in kept)
        metric = self._setting("train", "best", "metric")
        known = [line for line in evaluations if not math.isnan(line.get(metric, math.nan))]
        if self._setting("train", "best", "evaluate") and known:
            best = min if self._setting("train", "best", "mode") == "min" else max
            kept, of_average = best(known, key=lambda line: line[metric]), metric.startswith(_AVERAGE)
        if of_average:
            kept = {name.removeprefix(_AVERAGE): value for name, value in kept.items() if name.startswith(_AVERAGE)}
        return {name: value for name, value in kept.items() if name.split("/")[0] in TASKS}

    @property
    def name(self) -> str:
        """Name of the folder; with that above it if it is only a number, such as a seed."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name

    @property
    def iterations(self) -> int:
        """Number of trained iterations."""
        return max((line["iteration"] + 1 for line in self.scalars if "total_loss" in line), default=0)

    @property
    def test_data(self) -> list[str]:
        """Names of the datasets that the run is evaluated on."""
        return self._data_sets("test")

    @property
    def train_data(self) -> list[str]:
        """Names of the datasets that the run is trained on."""
        return self._data_sets("train")

    def _data_sets(self, split: str) -> list[str]:
        names = self._setting("dataloader", split, "dataset", "names") or []
        return [names] if isinstance(names, str) else [str(name) for name in names]

    @property
    def keypoint_sigmas(self) -> list[float]:
        """OKS sigmas of the keypoints that the run is evaluated with; empty for those of the data."""
        return [float(sigma) for sigma in self._setting("dataloader", "evaluator", "kpt_oks_sigmas") or []]

    def _setting(self, *keys: str) -> Any:
        """Returns a value of the configuration; None if it is missing."""
        node: Any = self.config
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    @property
    def results_file(self) -> Path:
        """The predictions of the evaluation of :attr:`results`, as COCO results."""
        return self.folder / RESULTS_FILE

    @cached_property
    def seconds_per_iteration(self) -> float | None:
        """Median time of the logged iterations."""
        times = sorted(line["time"] for line in self.scalars if "time" in line)
        return times[len(times) // 2] if times else None

    @cached_property
    def training_seconds(self) -> float | None:
        """Time from the first to the last iteration, including evaluations; for a resumed run, since it was resumed."""
        found = re.findall(r"Total training time: (?:(\d+) days?, )?(\d+):(\d+):(\d+)", self.log)
        if not found:
            return None
        days, hours, minutes, seconds = (int(value or 0) for value in found[-1])
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    @cached_property
    def inference_seconds(self) -> float | None:
        """Time of the model for a batch of the last evaluation; a batch is one image unless the test loader sets more."""
        found = re.findall(r"pure compute time: .*?\(([\d.]+) s / iter", self.log)
        return float(found[-1]) if found else None

    @cached_property
    def gpu_memory(self) -> list[tuple[int, float]]:
        """Iterations and torch's peak GPU memory until then, in MiB; empty without a GPU."""
        return [(int(step), float(size)) for step, size in re.findall(r" iter: (\d+) .*? max_mem: (\d+)M", self.log)]

    @property
    def started(self) -> str:
        """Date and time of the start, or "" if unknown."""
        try:
            return datetime.fromisoformat(self.manifest["started"]).strftime("%Y-%m-%d %H:%M %Z")
        except (KeyError, TypeError, ValueError):
            return ""

    def settings(self) -> dict[str, str]:
        """Returns the values of the configuration as text, by dotted key."""
        return dict(_leaves(self.config, ""))


def read_run(folder: Path) -> Run:
    """Reads the folder of a run (``train.output_dir``).

    Raises:
        InputError: the folder is not that of a run, or a file cannot be read.

    Example:
        >>> _ = (tmp_path / "metrics.json").write_text('{"iteration": 99, "total_loss": 0.5, "segm/AP": 41.2}')
        >>> run = read_run(tmp_path)
        >>> run.iterations, run.results
        (100, {'segm/AP': 41.2})
    """
    from maskrcnn_ext.config.yaml_file import read_settings

    if not any((folder / name).is_file() for name in ("metrics.json", "config.yaml", RESULTS_FILE)):
        raise InputError(f"{folder} is not the folder of a run: it has no metrics.json{runs_near(folder)}")
    config_text = _text(folder / "config.yaml")
    return Run(
        folder,
        scalars=_scalars(_text(folder / "metrics.json")),
        config=read_settings(folder / "config.yaml") if config_text else {},
        config_text=config_text,
        manifest=_manifest(folder / "manifest.json"),
        log=_text(folder / "log.txt"),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error


def _scalars(text: str) -> list[dict[str, Any]]:
    """Merges the lines of one iteration, since a resumed run may repeat them. Lines that a crash cut off are left out."""
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            found = json.loads(line)
            by_iteration.setdefault(found["iteration"], {}).update(found)
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def _manifest(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(file) or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a JSON file ({error})") from error
    return found if isinstance(found, dict) else {}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yields dotted keys and values. A list is one value, unless it contains mappings."""
    if isinstance(value, Mapping) and value:
        entries: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        entries = list(enumerate(value))
    else:
        yield key, value if isinstance(value, str) else str(value)
        return
    for name, entry in entries:
        yield from _leaves(entry, f"{key}.{name}" if key else str(name))


def precision_by_task(run: Run, measured: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Returns AP, AP50, AP75, AR and the AP of small, medium and large objects for each task.

    Args:
        run: the run.
        measured: metrics by task of an evaluation; if empty, the metrics that training logged are returned.
    """
    if not measured:
        logged = [task for task in TASKS if f"{task}/AP" in run.results]
        names = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AP small": "APs", "AP medium": "APm", "AP large": "APl"}
        return {task: {name: run.results.get(f"{task}/{key}") for name, key in names.items()} for task in logged}
    return {
        task: {name: metrics[name] for name in ("AP", "AP50", "AP75", "AR")}
        | {f"AP {area['name']}": area["AP"] for area in metrics["areas"]}
        for task, metrics in measured.items()
    }


def time_and_memory(run: Run) -> dict[str, str]:
    """Returns the known times and the peak memory of a run as text, by label."""
    figures: dict[str, str] = {}
    if run.iterations:
        figures["iterations"] = f"{run.iterations:,}"
    if run.training_seconds:
        minutes, seconds = divmod(run.training_seconds, 60)
        figures["training time"] = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if run.seconds_per_iteration:
        figures["time per iteration (median)"] = _duration(run.seconds_per_iteration)
    if run.inference_seconds:
        figures["inference time per batch"] = _duration(run.inference_seconds)
    if run.gpu_memory:
        figures["peak GPU memory"] = f"{run.gpu_memory[-1][1] / 1024:.1f} GiB"
    return figures


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
