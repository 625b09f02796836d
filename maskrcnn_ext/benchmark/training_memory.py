"""Computes how many images fit on a GPU, from the memory of a training step with and without activation checkpointing and bf16."""

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
from maskrcnn_ext.benchmark.training import OURS, labelled_image, train_step

CHECKPOINTING = {"nothing": (), "backbone": ("backbone",), "backbone and heads": ("backbone", "box_head", "mask_head")}
# Most RoIs of an image that reach the mask head: a quarter of 512.
_OBJECTS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--config", default=models.R50, help="config of the model (default: %(default)s)")
    parser.add_argument("--size", type=models.size, default=(800, 1216), help="size of the images (default: 800x1216)")
    parser.add_argument("--card", type=float, default=24.0, help="memory of the GPU in GiB (default: %(default)s)")
    parser.add_argument(
        "--reserve", type=float, default=1.5, help="GiB of it left for CUDA and fragmentation (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Measures a step of one image and of two, on the GPU if there is one, and extrapolates: memory is linear in the images."""
    import torch

    rows = []
    with TemporaryDirectory() as folder:
        weights = models.detectron2_weights(Path(folder) / "model.pth", args.config, [models.NO_RESIZE], (320, 480))
        for name, bf16 in (("fp32", False), ("bf16", True)):
            for checkpointed, parts in CHECKPOINTING.items():
                case = (args.config, str(weights), parts, bf16, args.size, torch.get_num_threads())
                fixed, image = in_new_process(memory_of, *case)
                images = int(max(0.0, (args.card - args.reserve) * 2**30 - fixed) / image)
                values = {"fixed GiB": fixed / 2**30, "GiB an image": image / 2**30, "images": images}
                rows.append(Row(f"{name}, checkpointed: {checkpointed}", values=values))
    title = f"images of {args.size[0]} x {args.size[1]} in {args.card:g} GiB, {args.config.removesuffix('.py')}"
    where = "the GPU" if torch.cuda.is_available() else "a CPU, whose convolutions have workspaces of other sizes"
    note = f"Computed from the tensors of steps on {where}. {args.reserve:g} GiB are left for CUDA; {_OBJECTS} objects per image."
    yield Table(title, rows, note)


def memory_of(
    config: str, weights: str, parts: tuple[str, ...], bf16: bool, size: tuple[int, int], threads: int
) -> tuple[float, float]:
    """Returns the peak bytes of a training step that do not depend on the number of images, and those per image."""
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
        images = [labelled_image(size, _OBJECTS, model.roi_heads.num_classes, seed) for seed in range(batch)]
        momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), *gradients, *momenta))
        with EventStorage():  # checkpointed heads log to it in the backward pass
            return _peak(lambda: train_step(model, optimizer, images, bf16=bf16), held)

    _, one, two = (peak(batch) for batch in (1, 1, 2))  # the first one allocates gradients and momenta
    return 2 * one - two, two - one


def _peak(step: Callable[[], Any], held: int) -> float:
    """Returns the peak bytes of tensors while a step runs; `held` bytes are allocated before it."""
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
