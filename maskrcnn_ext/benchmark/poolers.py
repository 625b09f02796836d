"""Measures RoIAlign on the pyramid of R50-FPN, forward and backward."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from maskrcnn_ext.benchmark import models
from maskrcnn_ext.benchmark.measuring import measure
from maskrcnn_ext.benchmark.tables import Table
from maskrcnn_ext.errors import InputError

STOCK_POOLER = "Detectron2, float32, NCHW"


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Adds nothing: this benchmark has no arguments."""


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Compares FastROIPooler with Detectron2's ROIPooler on boxes of all sizes, in both memory formats and in bfloat16."""
    for count, output_size in ((1000, 7), (100, 14)):
        for sampling_ratio in (0, 2):
            forward, backward = pooler_sides(count, output_size, sampling_ratio)
            for name, sides in (("forward", forward), ("backward", backward)):
                title = f"{count} RoIs of {output_size} x {output_size} x 256, sampling_ratio={sampling_ratio}, {name}"
                yield Table.of_times(title, measure(sides, args.repeats))


def pooler_sides(count: int, output_size: int, sampling_ratio: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the forward and the backward functions of each side.

    Raises:
        InputError: the results of a side differ from Detectron2's.
    """
    import torch
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.structures import Boxes

    from maskrcnn_ext.modeling.poolers.fast import FastROIPooler

    device = models.device()
    generator = torch.Generator().manual_seed(0)
    strides = (4, 8, 16, 32)
    levels = [torch.randn(1, 256, 800 // stride, 1216 // stride, generator=generator) for stride in strides]
    # Sides from 12 to 735 pixels, aspect ratios to 5 : 1, within the image.
    shape = torch.rand(count, 2, generator=generator)
    side, aspect = (2.5 + 4.1 * shape[:, :1]).exp(), (1.6 * shape[:, 1:] - 0.8).exp()
    extent = torch.tensor([1216, 800])
    sizes = torch.cat([side * aspect, side / aspect], dim=1).minimum(extent)
    corners = torch.rand(count, 2, generator=generator) * (extent - sizes)
    boxes = [Boxes(torch.cat([corners, corners + sizes], dim=1).to(device))]
    gradient = torch.randn(count, 256, output_size, output_size, generator=generator)

    forward: dict[str, Any] = {}
    backward: dict[str, Any] = {}
    for name, kind, dtype, layout in (
        (STOCK_POOLER, ROIPooler, torch.float32, torch.contiguous_format),
        ("Detectron2, float32, channels_last", ROIPooler, torch.float32, torch.channels_last),
        ("maskrcnn_ext, float32, NCHW", FastROIPooler, torch.float32, torch.contiguous_format),
        ("maskrcnn_ext, float32, channels_last", FastROIPooler, torch.float32, torch.channels_last),
        ("maskrcnn_ext, bfloat16, NCHW", FastROIPooler, torch.bfloat16, torch.contiguous_format),
        ("maskrcnn_ext, bfloat16, channels_last", FastROIPooler, torch.bfloat16, torch.channels_last),
    ):
        pooler: Any = kind(output_size, [1 / stride for stride in strides], sampling_ratio, "ROIAlignV2")
        features = [level.to(device, dtype).contiguous(memory_format=layout).requires_grad_() for level in levels]
        pooled = pooler(features, boxes)
        output_gradient = gradient.to(pooled)
        if name == STOCK_POOLER:
            expected = pooled.detach()
        elif (pooled - expected).abs().max() > (1e-5 if dtype == torch.float32 else 0.1):
            raise InputError(f"{name}: the results differ from Detectron2's")
        inference = [level.detach() for level in features]
        forward[name] = models.synchronised(partial(pooler, inference, boxes))
        backward[name] = models.synchronised(
            partial(torch.autograd.grad, pooled, features, output_gradient, retain_graph=True)
        )
    return forward, backward
