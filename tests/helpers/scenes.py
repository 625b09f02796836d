"""Small ground truths and results: rectangles, whose overlaps can be computed by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.cocoeval import COCOeval

from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, IOUS, Matching, match
from maskrcnn_ext.evaluation.overlaps import pair_up
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.truth import load_truth

HEIGHT, WIDTH = 120, 160
COCO_AREAS = [ALL_AREAS, (0, 32**2), (32**2, 96**2), (96**2, np.inf)]


def rectangle(x: int, y: int, w: int, h: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, Any]:
    """Returns a compressed RLE with counts as text."""
    pixels = np.zeros(size, np.uint8)
    pixels[y : y + h, x : x + w] = 1
    rle: dict[str, Any] = mask_util.encode(np.asfortranarray(pixels))
    return {**rle, "counts": rle["counts"].decode()}


def truth_of(objects: list[tuple], *, images: int = 1, classes: int = 1) -> dict[str, Any]:
    """Returns COCO content of (image, class, x, y, w, h), or (..., 1) for a crowd; image ids are 1, 2, ..., category ids 10, 20, ..."""
    return {
        "images": [{"id": i + 1, "file_name": f"{i + 1}.png", "height": HEIGHT, "width": WIDTH} for i in range(images)],
        "categories": [{"id": 10 * (i + 1), "name": f"c{i}"} for i in range(classes)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": 10 * (category + 1),
                "bbox": list(box[:4]),
                "area": box[2] * box[3],
                "iscrowd": int(bool(box[4:])),
                "segmentation": rectangle(*box[:4]),
            }
            for number, (image, category, *box) in enumerate(objects, start=1)
        ],
    }


def found(image: int, category: int, x: int, y: int, w: int, h: int, score: float = 0.9) -> dict[str, Any]:
    """Returns a result with box and mask."""
    return {
        "image_id": image,
        "category_id": 10 * (category + 1),
        "bbox": [x, y, w, h],
        "score": score,
        "segmentation": rectangle(x, y, w, h),
    }


def perfect(truth: dict[str, Any], score: float = 0.9) -> list[dict[str, Any]]:
    """Returns results that equal the objects."""
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{key: own[key] for key in keys} | {"score": score} for own in truth["annotations"] if not own["iscrowd"]]


def random_scene(seed: int, *, images: int = 6, classes: int = 3, objects: int = 6) -> tuple[dict, list[dict]]:
    """Returns objects, a tenth of them crowds, and detections that are moved, doubled, of another class, or without an object."""
    rng = np.random.default_rng(seed)

    def box() -> list[int]:
        w, h = rng.integers(4, 60, 2)
        return [int(rng.integers(0, WIDTH - w)), int(rng.integers(0, HEIGHT - h)), int(w), int(h)]

    own, results = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, objects + 1)):
            category, place = int(rng.integers(classes)), box()
            own.append((image, category, *place, *([1] if rng.random() < 0.1 else [])))
            for _ in range(rng.integers(0, 4)):
                x, y, w, h = place + rng.integers(-3, 4, 4)
                x, y, w, h = max(x, 0), max(y, 0), max(w, 1), max(h, 1)
                kind = category if rng.random() < 0.8 else int(rng.integers(classes))
                results.append(found(image, kind, int(x), int(y), int(w), int(h), round(float(rng.random()), 1)))
        results += [found(image, int(rng.integers(classes)), *box(), float(rng.random())) for _ in range(2)]
    return truth_of(own, images=images, classes=classes), results


def official(truth: dict[str, Any], results: list[dict[str, Any]], task: str, limit: int = 1000) -> COCOeval:
    """Evaluates by pycocotools; the areas of masks are measured, not those of their boxes."""
    coco = load_truth(truth).as_coco()
    own = [{key: value for key, value in result.items() if task != "segm" or key != "bbox"} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(coco, coco.loadRes(own), task)
        if task != "keypoints":
            evaluator.params.maxDets = [limit]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def match_scene(truth, results, task="bbox", areas=COCO_AREAS, **options) -> Matching:
    """Returns the matching of a scene at COCO's IoU thresholds."""
    known = load_truth(truth)
    return match(pair_up(known, load_results(results, known), task, **options), IOUS, areas)


def add_keypoints(truth, results, count, rng) -> None:
    """Adds keypoints in the objects' boxes. Some are not visible, and some objects have no visible keypoint."""
    for own in truth["annotations"]:
        x, y, w, h = own["bbox"]
        visible = rng.integers(0, 3, count) * (rng.random() > 0.2)
        points = np.stack([rng.uniform(x, x + w, count), rng.uniform(y, y + h, count), visible], axis=1)
        own.update(keypoints=points.ravel().tolist(), num_keypoints=int((visible > 0).sum()))
    for result in results:
        x, y, w, h = result["bbox"]
        near = min(
            (own for own in truth["annotations"]), key=lambda own: abs(own["bbox"][0] - x) + abs(own["bbox"][1] - y)
        )
        points = np.array(near["keypoints"]).reshape(-1, 3) + rng.normal(0, 1, (count, 3))
        result["keypoints"] = points.ravel().tolist()
