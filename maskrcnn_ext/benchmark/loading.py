"""Training images a second: the loader's, and the model's that it feeds."""

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
    """Declares the benchmark's arguments."""
    parser.add_argument(
        "--config", default=SHAPES, help="with data of its own; %(default)s, the default, gets generated images"
    )
    parser.add_argument("--images", type=models.positive, default=200, help="to generate (default: %(default)s)")
    parser.add_argument("--batches", type=models.positive, default=20, help="of a run (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2, 4], help="numbers of processes to measure (default: 0 2 4)"
    )


def run(args: argparse.Namespace) -> Iterator[Table]:
    """The mappers take turns with every number of workers, and so does the training of the config's model on batches in memory."""
    from maskrcnn_ext.config.overrides import apply_overrides
    from maskrcnn_ext.inference.loading import read_config

    with TemporaryDirectory() as folder:
        cfg = read_config(args.config)
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
                seconds[name].append(load(loader, args.batches, ahead=1 + 2 * workers // batch_size) / batch_size)
            seconds[TRAINING].append(train() / batch_size)
    rate = {name: 1 / statistics.median(times) for name, times in seconds.items()}
    rows = [
        Row(name, seconds[name], {"images/s": rate[name], "of the training's": rate[name] / rate[TRAINING]})
        for name in seconds
    ]
    yield Table(f"An image of {args.config.removesuffix('.py')}, in batches of {batch_size}", rows)


def open_loader(cfg: Any, mapper: str, workers: int) -> Any:
    """Builds the config's training loader with a mapper, which gets those of the config's arguments that it knows."""
    from detectron2.config import instantiate

    from maskrcnn_ext.config.callables import accepted_arguments, find_target

    node = copy.deepcopy(cfg.dataloader.train)
    known = accepted_arguments(find_target(mapper, "dataloader.train.mapper")) or {}
    for key in node.mapper.keys() - known.keys():
        del node.mapper[key]
    node.mapper._target_ = mapper
    node.num_workers = workers
    return instantiate(node)


def load(loader: Iterator[Any], batches: int, ahead: int) -> float:
    """Returns the seconds of a batch.

    Args:
        loader: always the same iterator: of a loader of Detectron2 that is begun again, a batch may never be full.
        batches: to take.
        ahead: to take before, unmeasured: what the workers have made meanwhile, until they wait.
    """
    for _ in range(ahead):
        next(loader)
    begun = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return (time.perf_counter() - begun) / batches


def open_training(cfg: Any, loader: Iterator[Any]) -> Callable[[], float]:
    """Returns what trains the config's model, from random weights, on two batches in memory and returns the seconds of one."""
    import torch
    from detectron2.config import instantiate

    batches = list(itertools.islice(loader, 2))
    torch.manual_seed(0)
    model = instantiate(cfg.model).to(models.device()).eval()
    models.calibrate(model, lambda: model.inference(batches[0][:1], do_postprocess=False))
    model.train()
    # So low a rate that it does not matter what is learnt.
    optimizer = torch.optim.SGD((weights for weights in model.parameters() if weights.requires_grad), lr=1e-8)

    def train() -> float:
        begun = time.perf_counter()
        for batch in batches:
            train_step(model, optimizer, batch)
        return (time.perf_counter() - begun) / len(batches)

    return train
