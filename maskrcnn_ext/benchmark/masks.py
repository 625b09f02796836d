"""Measures the conversion of mask probabilities to RLEs of large images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from maskrcnn_ext.benchmark.measuring import in_new_process, measure, memory_growth
from maskrcnn_ext.benchmark.tables import Row, Table
from maskrcnn_ext.errors import InputError

PASTES = ("Detectron2 + pycocotools", "maskrcnn_ext")


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Adds nothing: this benchmark has no arguments."""


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Compares the package's conversion with Detectron2's pasting and pycocotools' encoding. New processes measure the memory."""
    for count, size, box_sides in (
        (60, (3000, 3000), (60, 600)),
        (100, (4000, 6000), (60, 1000)),
        (4, (3000, 3000), (3000, 3000)),
    ):
        case = (count, size, box_sides)
        sides = {name: paste_side(name, *case) for name in PASTES}
        if sides[PASTES[0]]() != sides[PASTES[1]]():
            raise InputError("the RLEs of the two sides differ")
        seconds = measure(sides, args.repeats)
        grown = {name: {"MB": in_new_process(paste_memory, name, *case)} for name in PASTES}
        title = f"{count} masks, image {size[0]} x {size[1]}, boxes of {box_sides[0]} to {box_sides[1]} px"
        yield Table(title, [Row(name, seconds[name], grown[name]) for name in PASTES])


def paste_memory(name: str, *case: Any) -> float:
    """Returns by how many MB one side grows, after a small run that loads all it needs."""
    paste_side(name, 1, (64, 64), (20, 40))()
    return memory_growth(paste_side(name, *case))


def paste_side(name: str, count: int, size: tuple[int, int], box_sides: tuple[int, int]) -> Callable[[], Any]:
    """Returns a function that converts smooth random masks of 28 x 28 pixels, in random boxes within the image, on one side."""
    import numpy as np
    import torch
    from detectron2.layers.mask_ops import paste_masks_in_image

    from maskrcnn_ext.ops.mask_paste import paste_to_rle
    from maskrcnn_ext.ops.rle import encode_mask

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 7, 7, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic")[:, 0].clamp(0, 1)
    extent = torch.tensor([size[1], size[0]])
    box_size = box_sides[0] + torch.rand(count, 2, generator=generator) * (box_sides[1] - box_sides[0])
    centre = box_size / 2 + torch.rand(count, 2, generator=generator) * (extent - box_size)
    boxes = torch.cat([centre - box_size / 2, centre + box_size / 2], dim=1)

    def stock() -> Any:
        dense = paste_masks_in_image(masks, boxes, size)
        return [encode_mask(mask.numpy().view(np.uint8)) for mask in dense]

    return stock if name == PASTES[0] else lambda: paste_to_rle(masks, boxes, size)
