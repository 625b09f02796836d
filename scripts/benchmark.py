#!/usr/bin/env python3
"""Measures a part of maskrcnn_ext against what it stands beside: scripts/benchmark.py COMMAND --help.

The sides take turns, and the median of each is printed: a busy machine slows both.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> int:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_data(commands)
    add_paste(commands)
    args = parser.parse_args(argv)
    args.run(args)
    return 0


def measure(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Returns the median seconds of each side; the sides take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, function in sides.items():
            gc.collect()
            start = time.perf_counter()
            result = function()
            seconds[name].append(time.perf_counter() - start)
            del result  # before the other side needs the memory
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(medians: dict[str, float], reference: str) -> None:
    """Prints seconds, and each side's ratio to the reference."""
    width = max(map(len, medians))
    for name, value in medians.items():
        print(f"{name:<{width}}  {value:8.2f} s  {value / medians[reference]:5.2f} x")


def memory_growth(function: Callable[[], Any]) -> float:
    """Returns by how many megabytes this process grows at most while the function runs; run in a fresh process."""
    import psutil

    process = psutil.Process()
    gc.collect()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = function()
    done.set()
    watcher.join()
    peak = max(peak, process.memory_info().rss)
    del result  # until here, so that what is returned counts
    return (peak - before) / 1e6


def add_data(commands: Any) -> None:
    """Declares ``data``: reading a large COCO file into Detectron2's dicts."""
    parser = commands.add_parser("data", help="reading a large COCO file into Detectron2's dicts")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--points", type=int, default=22, help="mean corners of an outline (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.set_defaults(run=run_data)


def run_data(args: argparse.Namespace) -> None:
    """Our reader without a cache, when it writes one and when it reads one, against the JSON module with pycocotools' index."""
    from detectron2.data import DatasetCatalog
    from pycocotools.coco import COCO

    from maskrcnn_ext.data import cache
    from maskrcnn_ext.data.catalog import ensure_registered

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "annotations.json"
        write_coco(file, args.images, args.annotations, args.points)
        print(f"{args.images} images, {args.annotations} annotations, {file.stat().st_size / 1e6:.0f} MB")
        name = f"coco:{file}@{folder}"
        ensure_registered(name)

        def index() -> Any:
            coco = COCO()
            with file.open(encoding="utf-8") as stream:
                coco.dataset = json.load(stream)
            with contextlib.redirect_stdout(io.StringIO()):
                coco.createIndex()
            return coco

        def ours(place: str, *, empty: bool) -> Any:
            os.environ["MASKRCNN_EXT_CACHE"] = place
            entries = Path(place)
            for entry in entries.iterdir() if empty and entries.is_dir() else ():
                entry.unlink()
            return DatasetCatalog.get(name)

        reference = "json.load + pycocotools' index"
        kept = str(Path(folder) / "cache")
        sides = {reference: index, "maskrcnn_ext, no cache": lambda: ours("off", empty=False)}
        if file.stat().st_size >= cache.MIN_BYTES:
            sides["maskrcnn_ext, writing the cache"] = lambda: ours(kept, empty=True)
            sides["maskrcnn_ext, from the cache"] = lambda: ours(kept, empty=False)
        print_table(measure(sides, args.repeats), reference)


def write_coco(file: Path, num_images: int, num_annotations: int, points: int) -> None:
    """Writes a COCO file like COCO's own: outlines with two decimals, 80 classes."""
    rng = random.Random(0)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 480, "width": 640} for i in range(num_images)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    with file.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        for number in range(num_annotations):
            corners = rng.randint(3, 2 * points - 3)
            annotation = {
                "id": number + 1,
                "image_id": rng.randrange(num_images),
                "category_id": rng.randint(1, 80),
                "bbox": [round(rng.uniform(1, 400), 2) for _ in range(4)],
                "area": round(rng.uniform(10, 9000), 2),
                "iscrowd": 0,
                "segmentation": [[round(rng.uniform(0, 480), 2) for _ in range(2 * corners)]],
            }
            stream.write((", " if number else "") + json.dumps(annotation))
        stream.write("]}")


PASTES = ("Detectron2 + pycocotools", "maskrcnn_ext")


def add_paste(commands: Any) -> None:
    """Declares ``paste``: mask probabilities to RLEs of a large image."""
    parser = commands.add_parser("paste", help="mask probabilities to RLEs of large images")
    parser.add_argument("--side", type=int, default=28, help="of a mask's grid (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.set_defaults(run=run_paste)


def run_paste(args: argparse.Namespace) -> None:
    """Our RLEs against Detectron2's paste with pycocotools' encode: time in turns, memory each in a process of its own."""
    for count, size, box_sides in (
        (60, (3000, 3000), (60, 600)),
        (100, (4000, 6000), (60, 1000)),
        (4, (3000, 3000), (3000, 3000)),
    ):
        case = (count, size, box_sides, args.side)
        print(f"{count} masks, image {size[0]} x {size[1]}, boxes of {box_sides[0]} to {box_sides[1]} px")
        sides = {name: paste_side(name, *case) for name in PASTES}
        if sides[PASTES[0]]() != sides[PASTES[1]]():
            sys.exit("the RLEs differ")
        print_table(measure(sides, args.repeats), PASTES[0])
        for name in PASTES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(f"  {name}: memory grows by {pool.apply(paste_memory, (name, *case)):.0f} MB")


def paste_memory(name: str, *case: Any) -> float:
    """Measures one side, after a first small run, which loads what it needs."""
    paste_side(name, 1, (64, 64), (20, 40), 28)()
    return memory_growth(paste_side(name, *case))


def paste_side(
    name: str, count: int, size: tuple[int, int], box_sides: tuple[int, int], side: int
) -> Callable[[], Any]:
    """Returns what one side does with smooth random masks in random boxes within the image."""
    import numpy as np
    import torch
    from detectron2.layers.mask_ops import paste_masks_in_image
    from pycocotools import mask as mask_util

    from maskrcnn_ext.ops.mask_paste import paste_to_rle

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 7, 7, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0].clamp(0, 1)
    extent = torch.tensor([size[1], size[0]])
    box_size = box_sides[0] + torch.rand(count, 2, generator=generator) * (box_sides[1] - box_sides[0])
    centre = box_size / 2 + torch.rand(count, 2, generator=generator) * (extent - box_size)
    boxes = torch.cat([centre - box_size / 2, centre + box_size / 2], dim=1)

    def stock() -> Any:
        dense = paste_masks_in_image(masks, boxes, size)
        return [mask_util.encode(np.asfortranarray(mask.numpy().view(np.uint8))) for mask in dense]

    return stock if name == PASTES[0] else lambda: paste_to_rle(masks, boxes, size)


if __name__ == "__main__":
    sys.exit(main())
