"""What a finished run left in its folder: the curves, the results, the predictions, and the data they were made on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError


@dataclass(frozen=True)
class Detection:
    """One predicted object; `segmentation` is an RLE of the whole image, or None for a model without masks."""

    category: int
    score: float
    box: tuple[float, float, float, float]
    segmentation: dict[str, Any] | None


@dataclass(frozen=True)
class Run:
    """A run as the report sees it.

    Attributes:
        scalars: one dict for each line of ``metrics.json``, with its "iteration".
        results: the last evaluation, such as ``{"segm/AP": 41.2, "segm/AP-disc": 50.0}``; empty before the first one.
        classes: class names by index.
        images: the evaluated images in Detectron2's standard format, with their ground truth.
        detections: predictions by image id.
    """

    scalars: list[dict[str, Any]]
    results: dict[str, float]
    classes: list[str]
    images: list[dict[str, Any]]
    detections: dict[Any, list[Detection]]


def read_run(folder: Path) -> Run:
    """Reads a folder that training with one of this package's configs has written (``train.output_dir``).

    Raises:
        InputError: the folder is not that of such a run.
    """
    for name in ("metrics.json", "config.yaml"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is not the folder of a run: it has no {name}")
    scalars = [json.loads(line) for line in (folder / "metrics.json").read_text(encoding="utf-8").splitlines()]
    names = _test_names(folder / "config.yaml")

    from detectron2.data import MetadataCatalog

    from maskrcnn_ext.data.catalog import get_dataset_dicts

    images = get_dataset_dicts(names, filter_empty=False)
    metadata = MetadataCatalog.get(names[0])
    to_index = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(len(metadata.thing_classes))}
    return Run(
        scalars=scalars,
        results=_last_results(scalars),
        classes=list(metadata.thing_classes),
        images=images,
        detections=_detections(folder / "inference" / "coco_instances_results.json", to_index),
    )


def _test_names(config_file: Path) -> list[str]:
    from detectron2.config import LazyConfig

    names: str | Sequence[str] = LazyConfig.load(str(config_file)).dataloader.test.dataset.names
    return [names] if isinstance(names, str) else list(names)


def _last_results(scalars: list[dict[str, Any]]) -> dict[str, float]:
    for line in reversed(scalars):
        results = {name: value for name, value in line.items() if name.split("/")[0] in ("bbox", "segm", "keypoints")}
        if results:
            return results
    return {}


def _detections(file: Path, to_index: dict[int, int]) -> dict[Any, list[Detection]]:
    if not file.is_file():
        return {}
    by_image: dict[Any, list[Detection]] = defaultdict(list)
    for entry in json.loads(file.read_text(encoding="utf-8")):
        x, y, width, height = entry["bbox"]
        detection = Detection(
            to_index[entry["category_id"]], entry["score"], (x, y, x + width, y + height), entry.get("segmentation")
        )
        by_image[entry["image_id"]].append(detection)
    return dict(by_image)
