"""Measures how many training images per second a data loader produces, and how many the training consumes."""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.tables import Row, Table
from maskrcnn_ext.benchmark.training import train_step

SHAPES = "domains/shapes.py"
TRAINING = "training"
MAPPERS = {"Detectron2": "detectron2.data.DatasetMapper", "maskrcnn_ext": "maskrcnn_ext.SafeMapper"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument(
        "--config", default=SHAPES, help="a config with its own data; the default, %(default)s, uses generated images"
    )
    parser.add_argument(
        "--images", type=models.positive, default=200, help="number of generated images (default: %(default)s)"
    )
    parser.add_argument("--batches", type=models.positive, default=20, help="batches per run (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2, 4], help="worker processes to measure (default: 0 2 4)"
    )


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Measures in turn each mapper with each number of workers, and the training of the config's model on batches in memory."""
    from maskrcnn_ext.config.overrides import apply_overrides
    from maskrcnn_ext.inference.loading import read_config

    with TemporaryDirectory() as folder:
        cfg = read_config(args.config, run_code=True)
        if args.config == SHAPES:
            from maskrcnn_ext.data.tools.shapes import make_shapes

            file = make_shapes(Path(folder), num_images=args.images)
            cfg = apply_overrides(cfg, [f"dataloader.train.dataset.names='coco:{file}@{file.parent / 'images'}'"])
        loaders = {
            f"{name}'s mapper, {workers} workers": (iter(open_loader(cfg, target, workers)), workers)
            for workers in args.workers
            for name, target in MAPPERS.items()
        }
        batch_size = cfg.dataloader.train.total_batch_size
        train = open_training(cfg, next(iter(loaders.values()))[0])
        train()
        seconds: dict[str, list[float]] = {name: [] for name in [*loaders, TRAINING]}
        for _ in range(args.repeats):
            for name, (loader, workers) in loaders.items():
                per_batch = time_batches(loader, args.batches, ahead=1 + 2 * workers // batch_size)
                seconds[name].append(per_batch / batch_size)
            seconds[TRAINING].append(train() / batch_size)
    rate = {name: 1 / statistics.median(times) for name, times in seconds.items()}
    rows = [
        Row(name, seconds[name], {"images/s": rate[name], "of the training's": rate[name] / rate[TRAINING]})
        for name in seconds
    ]
    yield Table(f"An image of {args.config.removesuffix('.py')}, in batches of {batch_size}", rows)


def open_loader(cfg: Any, mapper: str, workers: int) -> Any:
    """Builds the config's training loader with another mapper; arguments that this mapper does not have are left out."""
    from detectron2.config import instantiate

    from maskrcnn_ext.config.callables import accepted_arguments, find_target

    node = copy.deepcopy(cfg.dataloader.train)
    known = accepted_arguments(find_target(mapper, "dataloader.train.mapper")) or {}
    for key in node.mapper.keys() - known.keys():
        del node.mapper[key]
    node.mapper._target_ = mapper
    node.num_workers = workers
    return instantiate(node)


def time_batches(loader: Iterator[Any], batches: int, ahead: int) -> float:
    """Returns the seconds per batch of a data loader.

    Args:
        loader: an iterator that is used for all measurements: a restarted iterator of Detectron2's loader may never fill a batch.
        batches: batches to measure.
        ahead: batches to take before, unmeasured: those that the workers have prepared while the loader was idle.
    """
    for _ in range(ahead):
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return (time.perf_counter() - start) / batches


def open_training(cfg: Any, loader: Iterator[Any]) -> Callable[[], float]:
    """Returns a function that trains the config's model on two batches in memory and returns the seconds per batch."""
    import torch
    from detectron2.config import instantiate

    batches = list(itertools.islice(loader, 2))
    torch.manual_seed(0)
    model = instantiate(cfg.model).to(models.device()).eval()
    models.calibrate(model, lambda: model.inference(batches[0][:1], do_postprocess=False))
    model.train()
    # At so low a learning rate, the weights stay practically the same.
    optimizer = torch.optim.SGD((weights for weights in model.parameters() if weights.requires_grad), lr=1e-8)

    def train() -> float:
        start = time.perf_counter()
        for batch in batches:
            train_step(model, optimizer, batch)
        return (time.perf_counter() - start) / len(batches)

    return train
