"""How many images fit into a card: the memory of a training step, with and without activation checkpointing and bf16."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.measuring import in_new_process
from maskrcnn_ext.benchmark.tables import Row, Table
from maskrcnn_ext.benchmark.training import OURS, labelled, train_step

CHECKPOINTING = {"nothing": (), "backbone": ("backbone",), "backbone and heads": ("backbone", "box_head", "mask_head")}
# As many RoIs of an image as can go through the mask head: a quarter of 512.
_OBJECTS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the benchmark's arguments."""
    parser.add_argument("--config", default=models.R50, help="of the model (default: %(default)s)")
    parser.add_argument("--size", type=models.size, default=(800, 1216), help="of the images (default: 800x1216)")
    parser.add_argument("--card", type=float, default=24.0, help="GiB of the card (default: %(default)s)")
    parser.add_argument(
        "--reserve", type=float, default=1.5, help="GiB of it for CUDA and fragments (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> Iterator[Table]:
    """A step of one image and of two on the GPU or, where there is none, on the CPU; in between the memory is linear."""
    import torch

    rows = []
    with TemporaryDirectory() as folder:
        weights = models.detectron2_weights(Path(folder) / "model.pth", args.config, [models.NO_RESIZE], (320, 480))
        for name, low in (("fp32", False), ("bf16", True)):
            for forgotten, parts in CHECKPOINTING.items():
                case = (args.config, str(weights), parts, low, args.size, torch.get_num_threads())
                fixed, image = in_new_process(memory_of, *case)
                images = int(max(0.0, (args.card - args.reserve) * 2**30 - fixed) / image)
                values = {"fixed GiB": fixed / 2**30, "GiB an image": image / 2**30, "images": images}
                rows.append(Row(f"{name}, checkpointed: {forgotten}", values=values))
    title = f"images of {args.size[0]} x {args.size[1]} in {args.card:g} GiB, {args.config.removesuffix('.py')}"
    where = "the GPU" if torch.cuda.is_available() else "a CPU, whose convolutions have other workspaces than a GPU's"
    note = f"From the tensors of steps on {where}. {args.reserve:g} GiB are left for CUDA; {_OBJECTS} objects an image."
    yield Table(title, rows, note)


def memory_of(
    config: str, weights: str, parts: tuple[str, ...], low: bool, size: tuple[int, int], threads: int
) -> tuple[float, float]:
    """Returns the bytes at the peak of a training step that do not depend on the number of images, and those of each image."""
    import torch
    from detectron2.utils.events import EventStorage

    from maskrcnn_ext.engine.acceleration import checkpoint_activations

    torch.set_num_threads(threads)
    model = models.detectron2_model(config, weights, [models.NO_RESIZE, *OURS]).train()
    model.to(memory_format=torch.channels_last)
    checkpoint_activations(model, parts)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-8, momentum=0.9, fused=True)

    def peak(batch: int) -> float:
        images = [labelled(size, _OBJECTS, model.roi_heads.num_classes, seed) for seed in range(batch)]
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), *gradients, *momenta))
        with EventStorage():  # for heads that are computed again in the backward pass
            return _peak(lambda: train_step(model, optimizer, images, low=low), held)

    _, one, two = (peak(batch) for batch in (1, 1, 2))  # the first makes gradients and momenta
    return 2 * one - two, two - one


def _peak(step: Callable[[], Any], held: int) -> float:
    """Returns the most bytes of tensors while a step runs, before which there are those that are held."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return held + max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
