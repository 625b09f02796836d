"""Measures how long it takes to compute COCO's AP of many detections."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from maskrcnn_ext.benchmark.measuring import measure
from maskrcnn_ext.benchmark.tables import Table
from maskrcnn_ext.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--objects", type=int, default=15, help="per image (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=20)


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Compares pycocotools with the faster library that the evaluator uses, and with the package's own matching."""
    import numpy as np

    from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, IOUS, average_precisions, match, nan_mean
    from maskrcnn_ext.evaluation.backend import backend_name, run_coco_eval
    from maskrcnn_ext.evaluation.overlaps import pair_up
    from maskrcnn_ext.evaluation.results import by_image
    from maskrcnn_ext.evaluation.truth import load_truth

    content, results = make_detections(args.images, args.objects, args.classes)
    truth = load_truth(content)
    coco = truth.as_coco()
    size = (
        f"{args.images} images, {args.images * args.objects} objects, {len(results)} detections, {args.classes} classes"
    )

    def library(task: str, *, fast: bool) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(run_coco_eval(coco, by_image(results), task, fast=fast, max_detections=1000).stats[0] * 100)

    def ours(task: str) -> float:
        areas = [ALL_AREAS, (0, 32**2), (32**2, 96**2), (96**2, np.inf)]
        matching = match(pair_up(truth, results, task), IOUS, areas)
        return 100 * nan_mean(np.array([average_precisions(matching, area)[0] for area in range(len(areas))])[0])

    for task in ("bbox", "segm"):
        sides: dict[str, Callable[[], Any]] = {
            "pycocotools": partial(library, task, fast=False),
            backend_name(fast=True): partial(library, task, fast=True),
            "maskrcnn_ext's matching": partial(ours, task),
        }
        if np.ptp([side() for side in sides.values()]) > 1e-6:
            raise InputError(f"the APs of {task} differ")
        yield Table.of_times(f"COCO evaluation, {task}: {size}", measure(sides, args.repeats))


def make_detections(num_images: int, num_objects: int, num_classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns COCO annotations of ellipses and, for each of them, three detections that are slightly shifted."""
    import cv2
    import numpy as np

    from maskrcnn_ext.ops.rle import encode_mask, rle_box

    rng = np.random.default_rng(0)
    images = [{"id": i + 1, "height": 240, "width": 320} for i in range(num_images)]
    categories = [{"id": i + 1, "name": f"class {i}"} for i in range(num_classes)]
    annotations, results = [], []

    def make_object(image_id: int, category: int, centre: Any, axes: Any) -> dict[str, Any]:
        pixels = np.zeros((240, 320), np.uint8)
        cv2.ellipse(pixels, centre.astype(int).tolist(), np.maximum(axes, 3).astype(int).tolist(), 0, 0, 360, 1, -1)
        mask = encode_mask(pixels)
        x0, y0, x1, y1 = rle_box(mask)
        box = [x0, y0, x1 - x0, y1 - y0]
        return {"image_id": image_id, "category_id": category, "bbox": box, "segmentation": mask}

    for image in images:
        for _ in range(num_objects):
            category = int(rng.integers(1, num_classes + 1))
            centre, axes = rng.uniform(30, 210, 2), rng.uniform(4, 60, 2)
            annotations.append(make_object(image["id"], category, centre, axes))
            for _ in range(3):
                moved = make_object(image["id"], category, centre + rng.normal(0, 3, 2), axes + rng.normal(0, 3, 2))
                results.append({**moved, "score": float(rng.random())})
    return {"images": images, "annotations": annotations, "categories": categories}, results
