"""What a finished run left in its folder: curves, results, configuration, manifest and log. The data it was made on is not read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError

RESULTS_FILE = "inference/coco_instances_results.json"
TASKS = {"segm": "masks", "keypoints": "keypoints", "bbox": "boxes"}  # the first of a run is the main one


@dataclass(frozen=True)
class Run:
    """A run as the report sees it; what its folder lacks is empty.

    Attributes:
        folder: its ``train.output_dir``.
        scalars: of ``metrics.json``, one dict an iteration, each with its "iteration", in order.
        config: of ``config.yaml``, as plain values without interpolations resolved.
        config_text: the same, as it stands in the file.
        manifest: of ``manifest.json``.
        log: of ``log.txt``.
    """

    folder: Path
    scalars: list[dict[str, Any]]
    config: dict[str, Any]
    config_text: str
    manifest: dict[str, Any]
    log: str

    @cached_property
    def results(self) -> dict[str, float]:
        """The last evaluation, such as ``{"segm/AP": 41.2, "segm/AP-disc": 50.0}``; empty before the first one."""
        for line in reversed(self.scalars):
            results = {name: value for name, value in line.items() if name.split("/")[0] in TASKS}
            if results:
                return results
        return {}

    @property
    def iterations(self) -> int:
        """How many were trained."""
        return max((line["iteration"] + 1 for line in self.scalars if "total_loss" in line), default=0)

    @property
    def test_data(self) -> list[str]:
        """The data sets that it is evaluated on."""
        node: Any = self.config
        for key in ("dataloader", "test", "dataset", "names"):
            node = node.get(key, []) if isinstance(node, Mapping) else []
        return [node] if isinstance(node, str) else [str(name) for name in node]

    @property
    def results_file(self) -> Path:
        """What the evaluation has found, as COCO results."""
        return self.folder / RESULTS_FILE

    @cached_property
    def seconds_per_iteration(self) -> float | None:
        """The median of what the log's iterations took."""
        times = sorted(line["time"] for line in self.scalars if "time" in line)
        return times[len(times) // 2] if times else None

    @cached_property
    def training_seconds(self) -> float | None:
        """From the first to the last iteration, evaluations among them; of a run that was resumed, of its last part."""
        found = re.findall(r"Total training time: (?:(\d+) days?, )?(\d+):(\d+):(\d+)", self.log)
        if not found:
            return None
        days, hours, minutes, seconds = (int(value or 0) for value in found[-1])
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    @cached_property
    def inference_seconds(self) -> float | None:
        """Of the model alone, for a batch of the last evaluation: one image, unless the test loader was told otherwise."""
        found = re.findall(r"pure compute time: .*?\(([\d.]+) s / iter", self.log)
        return float(found[-1]) if found else None

    @cached_property
    def gpu_memory(self) -> list[tuple[int, float]]:
        """Iteration, and the MiB that torch has had on the GPU at most until then; empty without a GPU."""
        return [(int(step), float(size)) for step, size in re.findall(r" iter: (\d+) .*? max_mem: (\d+)M", self.log)]

    @property
    def started(self) -> str:
        """Date and time, or ""."""
        try:
            return datetime.fromisoformat(self.manifest["started"]).strftime("%Y-%m-%d %H:%M %Z")
        except (KeyError, TypeError, ValueError):
            return ""

    def settings(self) -> dict[str, str]:
        """The values of the configuration by their dotted keys, as text."""
        return dict(_leaves(self.config, ""))


def read_run(folder: Path) -> Run:
    """Reads the folder of a run (``train.output_dir``).

    Raises:
        InputError: it is none, or what is in it cannot be read.
    """
    if not any((folder / name).is_file() for name in ("metrics.json", "config.yaml", RESULTS_FILE)):
        raise InputError(f"{folder} is not the folder of a run: it has no metrics.json")
    config_text = _text(folder / "config.yaml")
    return Run(
        folder,
        scalars=_scalars(_text(folder / "metrics.json")),
        config=_config(folder / "config.yaml") if config_text else {},
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
    """Joins the lines of an iteration, which a resumed run may have written twice; a line that a crash cut off is left out."""
    by_iteration: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            found = json.loads(line)
            by_iteration.setdefault(found["iteration"], {}).update(found)
        except (KeyError, TypeError, ValueError):
            continue
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def _config(file: Path) -> dict[str, Any]:
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf

    try:
        config: Any = OmegaConf.to_container(LazyConfig.load(str(file)), resolve=False)
    except Exception as error:  # whatever a file of another kind makes yaml or omegaconf stumble over
        raise InputError(f"{file}: not a config ({' '.join(str(error).split()):.150})") from error
    return config if isinstance(config, dict) else {}


def _manifest(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(file) or "{}")
    except ValueError as error:
        raise InputError(f"{file}: not a JSON file ({error})") from error
    return found if isinstance(found, dict) else {}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """A list is one value, unless it holds nodes."""
    if isinstance(value, Mapping) and value:
        entries: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        entries = list(enumerate(value))
    else:
        yield key, value if isinstance(value, str) else str(value)
        return
    for name, entry in entries:
        yield from _leaves(entry, f"{key}.{name}" if key else str(name))
