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
from functools import partial
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> int:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_data(commands)
    add_paste(commands)
    add_poolers(commands)
    add_evaluation(commands)
    add_export(commands)
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


def add_evaluation(commands: Any) -> None:
    """Declares ``evaluation``: COCO's AP of many detections."""
    parser = commands.add_parser("evaluation", help="COCO's AP of boxes and masks")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--objects", type=int, default=15, help="of an image (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.set_defaults(run=run_evaluation)


def run_evaluation(args: argparse.Namespace) -> None:
    """The official program against faster-coco-eval, as the evaluator uses them, and the matching that all other metrics stand on."""
    import numpy as np

    from maskrcnn_ext.evaluation.average_precision import average_precisions, mean
    from maskrcnn_ext.evaluation.backend import backend_name, run_coco_eval
    from maskrcnn_ext.evaluation.matching import ALL_AREAS, IOUS, match
    from maskrcnn_ext.evaluation.overlaps import pair_up
    from maskrcnn_ext.evaluation.truth import load_truth

    content, results = make_detections(args.images, args.objects, args.classes)
    truth = load_truth(content)
    coco = truth.as_coco()
    print(
        f"{args.images} images, {args.images * args.objects} objects, {len(results)} detections, {args.classes} classes"
    )

    def library(task: str, *, fast: bool) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(run_coco_eval(coco, results, task, fast=fast, max_detections=1000).stats[0] * 100)

    def ours(task: str) -> float:
        areas = [ALL_AREAS, (0, 32**2), (32**2, 96**2), (96**2, np.inf)]
        matching = match(pair_up(truth, results, task), IOUS, areas)
        return 100 * mean(np.array([average_precisions(matching, area)[0] for area in range(len(areas))])[0])

    for task in ("bbox", "segm"):
        sides: dict[str, Callable[[], Any]] = {
            "pycocotools": partial(library, task, fast=False),
            backend_name(coco, fast=True): partial(library, task, fast=True),
            "maskrcnn_ext's matching": partial(ours, task),
        }
        if np.ptp([side() for side in sides.values()]) > 1e-6:
            sys.exit("the APs differ")
        print(task)
        print_table(measure(sides, args.repeats), "pycocotools")


def make_detections(num_images: int, num_objects: int, num_classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns COCO content of ellipses, and three detections an object, each moved a little."""
    import cv2
    import numpy as np
    from pycocotools import mask as mask_util

    rng = np.random.default_rng(0)
    images = [{"id": i + 1, "height": 240, "width": 320} for i in range(num_images)]
    categories = [{"id": i + 1, "name": f"class {i}"} for i in range(num_classes)]
    annotations, results = [], []

    def found(image_id: int, category: int, centre: Any, axes: Any) -> dict[str, Any]:
        pixels = np.zeros((240, 320), np.uint8)
        cv2.ellipse(pixels, centre.astype(int).tolist(), np.maximum(axes, 3).astype(int).tolist(), 0, 0, 360, 1, -1)
        mask = mask_util.encode(np.asfortranarray(pixels))
        box = mask_util.toBbox(mask).tolist()
        return {"image_id": image_id, "category_id": category, "bbox": box, "segmentation": mask}

    for image in images:
        for _ in range(num_objects):
            category, centre, axes = (
                int(rng.integers(1, num_classes + 1)),
                rng.uniform(30, 210, 2),
                rng.uniform(4, 60, 2),
            )
            annotations.append(found(image["id"], category, centre, axes))
            for _ in range(3):
                moved = found(image["id"], category, centre + rng.normal(0, 3, 2), axes + rng.normal(0, 3, 2))
                results.append({**moved, "score": float(rng.random())})
    return {"images": images, "annotations": annotations, "categories": categories}, results


STOCK_POOLER = "Detectron2, float32, NCHW"


def add_poolers(commands: Any) -> None:
    """Declares ``poolers``: RoIAlign on the levels p2 to p5 of R50-FPN of an image of 800 x 1216."""
    parser = commands.add_parser("poolers", help="RoIAlign on the pyramid of R50-FPN, forward and backward")
    parser.add_argument("--threads", type=int, help="of torch (default: as many as there are cores)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.set_defaults(run=run_poolers)


def run_poolers(args: argparse.Namespace) -> None:
    """FastROIPooler against the stock ROIPooler, in either layout and in bfloat16, on boxes of all sizes."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{torch.get_num_threads()} threads")
    for count, output_size in ((1000, 7), (100, 14)):
        for sampling_ratio in (0, 2):
            case = (count, output_size, sampling_ratio)
            forward, backward = pooler_sides(*case)
            for name, sides in (("forward", forward), ("backward", backward)):
                medians = measure(sides, args.repeats)
                print(f"{count} RoIs of {output_size} x {output_size} x 256, sampling_ratio={sampling_ratio}, {name}")
                for side, seconds in medians.items():
                    print(f"  {side:<34}{seconds * 1e3:8.1f} ms  {medians[STOCK_POOLER] / seconds:6.1f} times as fast")


def pooler_sides(count: int, output_size: int, sampling_ratio: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what each side does forward and backward; exits where results differ from Detectron2's."""
    import torch
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.structures import Boxes

    from maskrcnn_ext.modeling.poolers.fast import FastROIPooler

    generator = torch.Generator().manual_seed(0)
    strides = (4, 8, 16, 32)
    levels = [torch.randn(1, 256, 800 // stride, 1216 // stride, generator=generator) for stride in strides]
    # Sides from 12 to 735 pixels, aspect ratios to 5 : 1, within the image.
    shape = torch.rand(count, 2, generator=generator)
    side, aspect = (2.5 + 4.1 * shape[:, :1]).exp(), (1.6 * shape[:, 1:] - 0.8).exp()
    extent = torch.tensor([1216, 800])
    sizes = torch.cat([side * aspect, side / aspect], dim=1).minimum(extent)
    corners = torch.rand(count, 2, generator=generator) * (extent - sizes)
    boxes = [Boxes(torch.cat([corners, corners + sizes], dim=1))]
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
        pooler = kind(output_size, [1 / stride for stride in strides], sampling_ratio, "ROIAlignV2")
        features = [level.to(dtype).contiguous(memory_format=layout).requires_grad_() for level in levels]
        pooled = pooler(features, boxes)
        given = gradient.to(pooled)
        if name == STOCK_POOLER:
            expected = pooled.detach()
        elif (pooled - expected).abs().max() > (1e-5 if dtype == torch.float32 else 0.1):
            sys.exit(f"{name}: the results differ")
        inference = [level.detach() for level in features]
        forward[name] = lambda pooler=pooler, features=inference: pooler(features, boxes)
        backward[name] = lambda pooled=pooled, features=features, given=given: torch.autograd.grad(
            pooled, features, given, retain_graph=True
        )
    return forward, backward


def add_export(commands: Any) -> None:
    """Declares ``export``: size, speed and AP of a model in every runtime that it is exported for."""
    parser = commands.add_parser("export", help="a model in every runtime: size, speed, AP")
    parser.add_argument("config", help="folder of a training run, or a config")
    parser.add_argument("weights", nargs="?", help="a checkpoint (default: the run's own)")
    parser.add_argument("--data", default="nuclei_val", help="to predict (default: %(default)s)")
    parser.add_argument("--calibrate", default="nuclei_train", help="for 8 bits (default: %(default)s)")
    parser.add_argument("--images", type=int, default=0, help="how many of the data; 0 for all")
    parser.add_argument("--threads", type=int, default=2, help="of every runtime (default: %(default)s)")
    parser.add_argument("--targets", nargs="+", help="some of those in the table (default: all)")
    parser.set_defaults(run=run_export)


EXPORTS = {
    "ONNX Runtime": ("onnx", "model.onnx"),
    "ONNX Runtime, 8 bits": ("onnx", "model.int8.onnx"),
    "OpenVINO": ("openvino", "model.xml"),
    "OpenVINO, 8 bits": ("openvino", "model.int8.xml"),
    "TorchScript": ("torchscript", "model.ts"),
    "torch.export": ("torch-export", "model.pt2"),
    "OpenCV DNN": ("opencv", "opencv"),
}


def run_export(args: argparse.Namespace) -> None:
    """PyTorch and the runtimes take turns at every image; their results are evaluated as COCO's."""
    import torch

    from maskrcnn_ext.cli.export import calibration_images
    from maskrcnn_ext.evaluation.truth import load_truth
    from maskrcnn_ext.inference.loading import load, reader
    from maskrcnn_ext.inference.sources import find_inputs
    from maskrcnn_ext.interop.export import Options, export
    from maskrcnn_ext.interop.export.recipe import recipe_of
    from maskrcnn_ext.interop.runtimes import open_model
    from maskrcnn_ext.interop.verify import Reference

    torch.set_num_threads(args.threads)
    loaded = load(args.config, args.weights, device="cpu")
    recipe = recipe_of(loaded.model, loaded.mapper, loaded.classes)
    calibration = calibration_images(loaded, args.calibrate, 64)
    read, items = reader(loaded.mapper), find_inputs([args.data]).items[: args.images or None]
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Any] = {"PyTorch": Reference(loaded.model, loaded.mapper)}
        sizes = {"PyTorch": sum(value.nbytes for value in loaded.model.state_dict().values())}
        for name, (target, file) in EXPORTS.items():
            if args.targets and name not in args.targets:
                continue
            images = calibration if "8 bits" in name else []
            place = Path(folder) / name.replace(" ", "_")
            written = export(loaded.model, recipe, target, place / file, Options(calibration=images))
            sides[name] = open_model(written, args.threads)
            sizes[name] = sum(part.stat().st_size for part in place.rglob("*") if part.is_file())
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number, item in enumerate(items):
            image = read(item.image)
            for name, side in sides.items():
                given = image[:, :, ::-1] if recipe.image_format == "RGB" and name != "PyTorch" else image
                if number == 0:
                    side(given)
                begun = time.perf_counter()
                found = side(given)
                seconds[name].append(time.perf_counter() - begun)
                results[name] += coco_results(found, item.image_id, image.shape[:2], recipe.category_ids)
    truth = load_truth(args.data).as_coco()
    print(f"{len(items)} images of {args.data}, {args.threads} threads")
    print("| | MB | seconds an image | | box AP | mask AP |\n|---|---|---|---|---|---|")
    base = statistics.median(seconds["PyTorch"])
    for name in sides:
        median = statistics.median(seconds[name])
        aps = [
            average_precision(truth, results[name], task, [item.image_id for item in items], recipe.max_detections)
            for task in ("bbox", "segm")
        ]
        print(
            f"| {name} | {sizes[name] / 1e6:.0f} | {median:.3f} | {base / median:.2f} x | {aps[0]:.2f} | {aps[1]:.2f} |"
        )


def average_precision(
    truth: Any, results: list[dict[str, Any]], task: str, image_ids: list[Any], max_detections: int
) -> float:
    """COCO's AP in percent of the images that were predicted."""
    from maskrcnn_ext.evaluation.backend import run_coco_eval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = run_coco_eval(truth, results, task, max_detections=max_detections, img_ids=image_ids)
    return float(evaluation.stats[0] * 100)


def coco_results(
    found: dict[str, Any], image_id: Any, size: tuple[int, int], category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """A runtime's results of one image as COCO's."""
    from maskrcnn_ext.interop.standalone.opencv_infer import encode

    return [
        {
            "image_id": image_id,
            "category_id": category_ids[kind],
            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            "score": float(score),
            "segmentation": encode(mask, size),
        }
        for (x0, y0, x1, y1), score, kind, mask in zip(
            found["boxes"], found["scores"], found["classes"], found["masks"], strict=True
        )
    ]


if __name__ == "__main__":
    sys.exit(main())
