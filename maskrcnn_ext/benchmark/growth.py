"""Measures how time and memory of a prediction grow with the image size, the objects, the classes and the batch."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.inference import dense_predict
from maskrcnn_ext.benchmark.measuring import in_new_process, measure, memory
from maskrcnn_ext.benchmark.tables import Row, Table

SIDES = ("Detectron2", "maskrcnn_ext")


@dataclass(frozen=True)
class Workload:
    """The size of one prediction.

    Attributes:
        weights: weights of the model.
        config: config of the model.
        classes: number of classes.
        side: side of the square images, in pixels.
        instances: most detections per image.
        batch: number of images.
    """

    weights: Path
    config: str
    classes: int = 80
    side: int = 512
    instances: int = 100
    batch: int = 1


# Axis -> the field of Workload, the unit of its slope, and the number of units in a value.
AXES: dict[str, tuple[str, str, Callable[[int], float]]] = {
    "side of the image": ("side", "megapixel", lambda side: side**2 / 1e6),
    "batch": ("batch", "image", float),
    "instances": ("instances", "instance", float),
    "classes": ("classes", "class", float),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--config", default=models.R50, help="config of the model (default: %(default)s)")
    parser.add_argument(
        "--side", type=models.positive, nargs="+", default=[256, 512, 768, 1024], help="image sides in pixels"
    )
    parser.add_argument("--batch", type=models.positive, nargs="+", default=[1, 2, 4], help="images at once")
    parser.add_argument(
        "--instances", type=models.positive, nargs="+", default=[1, 25, 50, 100, 300], help="detections per image"
    )
    parser.add_argument("--classes", type=models.positive, nargs="+", default=[3, 80, 1000], help="numbers of classes")


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Measures the sides in turn for each value. One process per side measures memory, for the values in ascending order."""
    import torch

    opened = lru_cache(maxsize=len(SIDES))(open_side)
    slopes = []
    with TemporaryDirectory() as folder:
        base = Workload(Path(folder) / "80.pth", args.config)
        for classes in {base.classes, *args.classes}:
            weights = base.weights.with_stem(str(classes))
            models.detectron2_weights(weights, args.config, overrides(classes), (base.side, base.side))
        for axis, (name, unit, units) in AXES.items():
            values = sorted(set(getattr(args, name)))
            works = [dataclasses.replace(base, **{name: value}) for value in values]
            works = [dataclasses.replace(work, weights=base.weights.with_stem(str(work.classes))) for work in works]
            grown = {side: in_new_process(memory_of, side, works, torch.get_num_threads()) for side in SIDES}
            rows: list[Row] = []
            times: dict[str, list[Any]] = {side: [] for side in SIDES}
            for index, (value, work) in enumerate(zip(values, works, strict=True)):
                sides = {side: partial(opened(side, work.weights, work.config, work.classes), work) for side in SIDES}
                found = sum(map(len, sides[SIDES[1]]()))
                rows.append(row(f"{value:,}", found, measure(sides, args.repeats), {s: grown[s][index] for s in SIDES}))
                for side in SIDES:
                    times[side].append(rows[-1].values[f"{side} ms"])
            yield Table(f"{args.config.removesuffix('.py')}: {axis}", rows)
            if len(values) > 1:
                x = [units(value) for value in values]
                slopes += [slope(f"{axis}: {side}", unit, x, times[side], grown[side]) for side in SIDES]
    yield Table(
        "Slopes",
        slopes,
        "Power: p of the fitted curve x^p of the times; x is the area for the side of the image. Per unit: slope of the fitted line.",
    )


def overrides(classes: int) -> list[str]:
    """Returns the overrides that set the number of classes."""
    return [models.NO_RESIZE, "dataloader.test.dataset.names=null", f"model.roi_heads.num_classes={classes}"]


def row(value: str, found: int, seconds: dict[str, list[float]], grown: dict[str, float]) -> Row:
    """Returns the row of one value. The spread is the difference of the longest and the shortest time, as a fraction of the median."""
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    return Row(
        value,
        values={
            "detections": found,
            **{f"{side} ms": 1e3 * median for side, median in medians.items()},
            "spread": "up to " + f"{max((max(t) - min(t)) / medians[side] for side, t in seconds.items()):.0%}",
            "times as fast": medians[SIDES[0]] / medians[SIDES[1]],
            **{f"{side} grows by MB": megabytes for side, megabytes in grown.items()},
        },
    )


def slope(name: str, unit: str, x: Sequence[float], milliseconds: Sequence[float], megabytes: Sequence[float]) -> Row:
    """Returns the row of one side's fits: a power of the times, and straight lines of times and memory."""
    import numpy as np

    return Row(
        name,
        values={
            "power": float(np.polyfit(np.log(x), np.log(milliseconds), 1)[0]),
            "ms per unit": float(np.polyfit(x, milliseconds, 1)[0]),
            "MB per unit": float(np.polyfit(x, megabytes, 1)[0]),
            "unit": unit,
        },
    )


def open_side(side: str, weights: Path, config: str, classes: int) -> Callable[[Workload], list[Any]]:
    """Loads one side and returns the function that predicts a workload."""
    if side == SIDES[0]:
        model = models.detectron2_model(config, weights, overrides(classes))
        predict = dense_predict(model)
    else:
        predictor = models.quick_predictor(config, weights, overrides=overrides(classes))
        model = predictor.model

        def predict(images: list[Any]) -> list[Any]:
            return list(predictor.predict(images, batch_size=len(images)))

    def run_once(work: Workload) -> list[Any]:
        model.roi_heads.box_predictor.test_topk_per_image = work.instances
        return predict([models.photograph(work.side, work.side, seed) for seed in range(work.batch)])

    return run_once


def memory_of(side: str, works: list[Workload], threads: int) -> list[float]:
    """Returns the peak memory of one side's predictions in MB above that of the loaded model, for workloads in ascending order."""
    import torch

    torch.set_num_threads(threads)
    loaded: dict[Path, float] = {}
    opened = lru_cache(maxsize=1)(open_side)
    grown = []
    for work in works:
        predict = opened(side, work.weights, work.config, work.classes)
        if work.weights not in loaded:
            predict(dataclasses.replace(work, side=64, batch=1, instances=1))
        before, peak = memory(partial(predict, work))
        # Memory that the process keeps after a smaller prediction counts for the larger one, too.
        grown.append(peak - loaded.setdefault(work.weights, before))
    return grown
