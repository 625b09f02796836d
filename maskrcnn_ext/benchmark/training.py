"""Measures a training step: forward, backward and optimizer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.measuring import add_clock, in_new_process, measure, memory
from maskrcnn_ext.benchmark.tables import Row, Table

OURS = (
    "model.proposal_generator._target_=maskrcnn_ext.FastRPN",
    "model.roi_heads.box_pooler._target_=maskrcnn_ext.FastROIPooler",
    "model.roi_heads.mask_pooler._target_=maskrcnn_ext.FastROIPooler",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--config", default=models.R50, help="config of the model (default: %(default)s)")
    parser.add_argument("--size", type=models.size, default=(640, 800), help="size of the images (default: 640x800)")
    parser.add_argument("--batch", type=models.positive, default=2, help="images per step (default: %(default)s)")
    parser.add_argument("--objects", type=models.positive, default=15, help="polygons per image (default: %(default)s)")
    add_clock(parser)


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Compares Detectron2's parts with those of the package, on the same images and weights. New processes measure the memory."""
    import torch

    names = ["Detectron2", "maskrcnn_ext"]
    names += [f"{name}, bf16" for name in names] if models.computes_bf16() else []
    with TemporaryDirectory() as folder:
        weights = models.detectron2_weights(Path(folder) / "model.pth", args.config, [models.NO_RESIZE], args.size)
        case = (args.config, str(weights), args.size, args.batch, args.objects)
        steps = {name: open_step(name, *case) for name in names}
        losses = {}
        for name, step in steps.items():
            torch.manual_seed(0)  # the same proposals are sampled
            losses[name] = step()
        seconds = measure(steps, args.repeats, clock=args.clock)
        del steps
        grown = {name: in_new_process(memory_of, name, torch.get_num_threads(), *case) for name in names}
    rows = [Row(name, seconds[name], {"loss": losses[name], **grown[name]}) for name in names]
    title = f"{args.config.removesuffix('.py')}, {args.batch} x {args.size[0]} x {args.size[1]} pixels, {args.objects} objects each"
    yield Table(
        title,
        rows,
        "maskrcnn_ext: FastRPN, FastROIPooler, channels_last, fused SGD; on a CPU also Winograd and depthwise convolutions."
        + ("" if len(names) > 2 else " Not measured: bf16 (this processor has no instructions for it)."),
    )


def open_step(
    name: str, config: str, weights: str, size: tuple[int, int], batch: int, num_objects: int
) -> Callable[[], float]:
    """Returns a function that runs a training step of one side and returns the loss."""
    import torch

    from maskrcnn_ext.engine.acceleration import enable_channels_last_kernels, enable_winograd

    ours = name.startswith("maskrcnn_ext")
    model = models.detectron2_model(config, weights, [models.NO_RESIZE, *(OURS if ours else ())])
    model.train()
    if ours:
        model.to(memory_format=torch.channels_last)
        if model.device.type == "cpu":
            enable_winograd(model, compiled=False)
            enable_channels_last_kernels(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # At so low a learning rate, all steps do the same work.
    optimizer = torch.optim.SGD(trained, lr=1e-8, momentum=0.9, weight_decay=1e-4, fused=True if ours else None)
    images = [labelled_image(size, num_objects, model.roi_heads.num_classes, seed) for seed in range(batch)]
    return lambda: train_step(model, optimizer, images, bf16=name.endswith("bf16"))


def train_step(model: Any, optimizer: Any, images: list[dict[str, Any]], *, bf16: bool = False) -> float:
    """Runs a step as Detectron2's trainer does and returns the loss, after a wait for the GPU."""
    import torch
    from detectron2.utils.events import EventStorage

    with EventStorage(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        loss = sum(model(images).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return float(loss.detach())


def labelled_image(size: tuple[int, int], num_objects: int, num_classes: int, seed: int) -> dict[str, Any]:
    """Returns a random image with random polygons of 12 points, whose diameters are 1/20 to 1/3 of its shorter side."""
    import numpy as np
    import torch
    from detectron2.structures import Boxes, Instances, PolygonMasks

    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    polygons = []
    for _ in range(num_objects):
        radius = rng.uniform(0.05, 0.33) * min(size) / 2
        centre = rng.uniform(radius, np.array(size[::-1]) - radius)
        polygons.append([(centre + circle * radius * rng.uniform(0.6, 1, (12, 1))).flatten()])
    truth = Instances(size)
    truth.gt_masks = PolygonMasks(polygons)
    truth.gt_boxes = Boxes(truth.gt_masks.get_bounding_boxes().tensor)
    truth.gt_classes = torch.from_numpy(rng.integers(0, num_classes, num_objects))
    return {"image": models.to_tensor(models.photograph(*size, seed)), "instances": truth}


def memory_of(name: str, threads: int, *case: Any) -> dict[str, float]:
    """Returns the memory of one side's second step; the first one allocates gradients and momenta, which stay."""
    import torch

    torch.set_num_threads(threads)
    step = open_step(name, *case)
    step()
    before, peak = memory(step)
    on_gpu = {"CUDA peak MB": torch.cuda.max_memory_allocated() / 1e6} if torch.cuda.is_available() else {}
    return {"peak MB": peak, "grows by MB": peak - before, **on_gpu}
