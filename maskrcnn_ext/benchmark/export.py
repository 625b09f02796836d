"""Measures an exported model in each runtime: size, speed and AP."""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskrcnn_ext.benchmark.tables import Row, Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("config", help="folder of a training run, or a config")
    parser.add_argument("weights", nargs="?", help="a checkpoint (default: the run's own)")
    parser.add_argument("--data", default="nuclei_val", help="data set to predict (default: %(default)s)")
    parser.add_argument(
        "--calibrate", default="nuclei_train", help="data set to calibrate 8-bit models with (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=0, help="number of images to predict; 0 for all")
    parser.add_argument("--targets", nargs="+", help="runtimes of the table to measure (default: all)")


EXPORTS = {
    "ONNX Runtime": ("onnx", "model.onnx"),
    "ONNX Runtime, 8 bits": ("onnx", "model.int8.onnx"),
    "OpenVINO": ("openvino", "model.xml"),
    "OpenVINO, 8 bits": ("openvino", "model.int8.xml"),
    "TorchScript": ("torchscript", "model.ts"),
    "torch.export": ("torch-export", "model.pt2"),
    "OpenCV DNN": ("opencv", "opencv"),
}


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Predicts each image with PyTorch and all runtimes in turn, and computes COCO's AP of their results."""
    import torch

    from maskrcnn_ext.evaluation.truth import load_truth
    from maskrcnn_ext.inference.loading import image_reader, load_model, sample_images
    from maskrcnn_ext.inference.sources import find_inputs
    from maskrcnn_ext.interop.export import Options, export
    from maskrcnn_ext.interop.export.recipe import build_recipe
    from maskrcnn_ext.interop.export.runtimes import open_model
    from maskrcnn_ext.interop.export.verify import Reference

    threads = torch.get_num_threads()
    loaded = load_model(args.config, args.weights, device="cpu")
    recipe = build_recipe(loaded.model, loaded.mapper, loaded.classes)
    calibration = sample_images(args.calibrate, 64, loaded.mapper)
    read, items = image_reader(loaded.mapper), find_inputs([args.data]).items[: args.images or None]
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Any] = {"PyTorch": Reference(loaded.model, loaded.mapper)}
        sizes = {"PyTorch": sum(value.nbytes for value in loaded.model.state_dict().values())}
        for name, (target, file) in EXPORTS.items():
            if args.targets and name not in args.targets:
                continue
            images = calibration if "8 bits" in name else []
            exported = Path(folder) / name.replace(" ", "_")
            written = export(loaded.model, recipe, target, exported / file, Options(calibration=images))
            sides[name] = open_model(written, threads)
            sizes[name] = sum(part.stat().st_size for part in exported.rglob("*") if part.is_file())
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number, item in enumerate(items):
            image = read(item.image)
            for name, side in sides.items():
                pixels = image[:, :, ::-1] if recipe.image_format == "RGB" and name != "PyTorch" else image
                if number == 0:
                    side(pixels)
                start = time.perf_counter()
                found = side(pixels)
                seconds[name].append(time.perf_counter() - start)
                results[name] += coco_results(found, item.image_id, image.shape[:2], recipe.category_ids)
    truth = load_truth(args.data).as_coco()
    image_ids = [item.image_id for item in items]
    rows = []
    for name in sides:
        box, mask = (
            average_precision(truth, results[name], task, image_ids, recipe.max_detections) for task in ("bbox", "segm")
        )
        rows.append(
            Row(name, seconds[name], {"MB": sizes[name] / 1e6, "box AP": f"{box:.2f}", "mask AP": f"{mask:.2f}"})
        )
    yield Table(f"{len(items)} images of {args.data}, {threads} threads", rows)


def average_precision(
    truth: Any, results: list[dict[str, Any]], task: str, image_ids: list[Any], max_detections: int
) -> float:
    """Returns COCO's AP, in percent, of the images with these ids."""
    from maskrcnn_ext.evaluation.backend import run_coco_eval
    from maskrcnn_ext.evaluation.results import by_image

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = run_coco_eval(truth, by_image(results), task, max_detections=max_detections, img_ids=image_ids)
    return float(evaluation.stats[0] * 100)


def coco_results(
    found: dict[str, Any], image_id: Any, size: tuple[int, int], category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Returns a runtime's results of one image as COCO results."""
    from maskrcnn_ext.interop.export.standalone.opencv_infer import encode

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
