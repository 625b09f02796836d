"""Measures `find-label-errors`: plants errors of four kinds into labels, and counts how many of the first k suspects are planted ones.

    python scripts/plant_label_errors.py nuclei_val output/small_data/nuclei/stock/1/inference/coco_instances_results.json --seeds 1 2 3

Of the objects, `--share` get an error, equally often of each kind: the object is deleted; its mask is copied to a free place; its class
becomes another one (with several classes); its mask is shifted by 40 % of its box. It is compared with the ranking by the score of the
detection alone: detections that match no object at IoU 0.5 by their score s, objects by 1 - s of the best detection of their class at
IoU 0.5. The labels themselves have errors, too: a suspect that was not planted may be right.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.tables import markdown_table
from maskrcnn_ext.common.text import plural
from maskrcnn_ext.evaluation.label_errors import KINDS, Suspect, find_label_errors
from maskrcnn_ext.evaluation.results import Results, load_results
from maskrcnn_ext.evaluation.truth import Truth, complete, load_truth
from maskrcnn_ext.ops.rle import RLE, decode_rle, encode_mask, pairwise_iou, rle_area, rle_box, segmentation_to_rle


def main() -> int:
    """Prints precision and recall at k, the number of planted errors, as means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a labelled data set that the model has not seen")
    parser.add_argument("results", type=Path, help="the model's predictions of it")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    truth = load_truth(args.data)
    rankings = {"find-label-errors": find_label_errors, "score alone": by_score}
    found: dict[tuple[str, str], list[float]] = {}
    for seed in args.seeds:
        planted, errors = plant(truth, args.share, random.Random(seed))
        results = load_results(args.results, planted)
        for name, rank in rankings.items():
            suspects = rank(planted, results)
            hits = [hit(one, errors, results) for one in suspects]
            # An error that has no free place is not planted, so n differs between seeds.
            for column, k in (("k = n/2", len(errors) // 2), ("k = n", len(errors)), ("k = 2 n", 2 * len(errors))):
                number = len({index for index in hits[:k] if index is not None})
                found.setdefault((name, f"precision, {column}"), []).append(number / k)
                found.setdefault((name, f"recall, {column}"), []).append(number / len(errors))
            for kind in KINDS:
                of_kind = [index for index, error in enumerate(errors) if error["kind"] == kind]
                if of_kind:
                    number = len(set(of_kind) & set(hits[: 2 * len(errors)]))
                    found.setdefault((name, f"recall of {kind}, k = 2 n"), []).append(number / len(of_kind))
    columns = list(dict.fromkeys(column for _, column in found))
    rows = [[column, *(f"{np.mean(found[name, column]):.2f}" for name in rankings)] for column in columns]
    print(f"{plural(len(truth.annotations), 'object')}, n = {len(errors)} errors, {plural(len(args.seeds), 'seed')}\n")
    print(markdown_table(rows, ["", *rankings], align=["left", "right", "right"]))
    return 0


def plant(truth: Truth, share: float, rng: random.Random) -> tuple[Truth, list[dict[str, Any]]]:
    """Returns the labels with errors, and for each error its kind and the id of the object or the mask that was deleted."""
    images = {image["id"]: image for image in truth.images}
    annotations = {found["id"]: copy.deepcopy(found) for found in truth.annotations}
    kinds = [kind for kind in KINDS if kind != "class" or len(truth.categories) > 1]
    single = [number for number, found in annotations.items() if not found["iscrowd"]]
    chosen = rng.sample(single, round(share * len(single)))
    planted: list[tuple[str, int, RLE | None]] = []
    for index, number in enumerate(chosen):
        kind, found = kinds[index % len(kinds)], annotations[number]
        image = images[found["image_id"]]
        rle = segmentation_to_rle(found["segmentation"], image["height"], image["width"])
        if kind == "missing":
            planted.append((kind, number, rle))
            continue
        if kind == "class":
            others = [category["id"] for category in truth.categories if category["id"] != found["category_id"]]
            found["category_id"] = rng.choice(others)
        elif kind == "outline":
            mask = decode_rle(rle)
            x0, y0, x1, y1 = rle_box(rle)
            dx, dy = (round(0.4 * side) * rng.choice((-1, 1)) for side in (x1 - x0, y1 - y0))
            moved = shifted(mask, dx, dy)
            found.update(contents(moved) if moved.any() else {})
        else:
            others = [a for a in annotations.values() if a["image_id"] == image["id"]]
            free = free_place(decode_rle(rle), others, image, rng)
            if free is None:
                continue
            number = max(annotations) + 1
            annotations[number] = {**copy.deepcopy(found), "id": number, **contents(free)}
        planted.append((kind, number, None))
    for kind, number, _ in planted:
        if kind == "missing":
            del annotations[number]
    dataset = {"images": truth.images, "categories": truth.categories, "annotations": list(annotations.values())}
    place = {number: index for index, number in enumerate(annotations)}  # `complete` numbers them again
    errors = [
        {"kind": kind, "object": place.get(number), "mask": rle, "image": truth_image(truth, annotations, number)}
        for kind, number, rle in planted
    ]
    return complete(dataset, f"{truth.name} with errors"), errors


def truth_image(truth: Truth, annotations: dict[int, dict[str, Any]], number: int) -> Any:
    """Returns the id of the image of an object that is in the labels, or was."""
    return annotations[number]["image_id"] if number in annotations else truth.annotations[number - 1]["image_id"]


def contents(mask: np.ndarray) -> dict[str, Any]:
    """Returns the fields of an annotation that follow from its mask."""
    rle = encode_mask(mask)
    x0, y0, x1, y1 = rle_box(rle)
    return {"segmentation": rle, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": float(rle_area(rle))}


def shifted(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """Returns a mask moved by whole pixels; what leaves the image is cut off."""
    moved = np.zeros_like(mask)
    ys, xs = mask.nonzero()
    inside = (ys + dy >= 0) & (ys + dy < mask.shape[0]) & (xs + dx >= 0) & (xs + dx < mask.shape[1])
    moved[ys[inside] + dy, xs[inside] + dx] = 1
    return moved


def free_place(
    mask: np.ndarray, others: list[dict[str, Any]], image: dict[str, Any], rng: random.Random
) -> np.ndarray | None:
    """Returns the mask at a random place without objects; None if 200 tries find none."""
    taken = np.zeros_like(mask)
    for other in others:
        taken |= decode_rle(segmentation_to_rle(other["segmentation"], image["height"], image["width"]))
    ys, xs = mask.nonzero()
    ys, xs = ys - ys.min(), xs - xs.min()
    for _ in range(200):
        y, x = rng.randrange(mask.shape[0] - ys.max()), rng.randrange(mask.shape[1] - xs.max())
        if not taken[ys + y, xs + x].any():
            moved = np.zeros_like(mask)
            moved[ys + y, xs + x] = 1
            return moved
    return None


def by_score(truth: Truth, results: Results) -> list[Suspect]:
    """Returns detections without an object and objects without a detection, ranked by the score of the detection alone."""
    suspects = []
    for image in truth.images:
        rows = [index for index, found in enumerate(results) if found["image_id"] == image["id"]]
        columns = [index for index, found in enumerate(truth.annotations) if found["image_id"] == image["id"]]
        size = image["height"], image["width"]
        objects = [segmentation_to_rle(truth.annotations[index]["segmentation"], *size) for index in columns]
        overlaps = pairwise_iou([results[index]["segmentation"] for index in rows], objects) >= 0.5
        same = np.equal.outer(
            [results[index]["category_id"] for index in rows],
            [truth.annotations[index]["category_id"] for index in columns],
        )
        score = np.array([results[index]["score"] for index in rows])
        for row, index in enumerate(rows):
            if not overlaps[row].any():
                suspects.append(Suspect("missing", float(score[row]), image["id"], None, index))
        for column, index in enumerate(columns):
            best = score[overlaps[:, column] & same[:, column]].max(initial=0.0)
            suspects.append(Suspect("spurious", 1 - float(best), image["id"], index, None))
    return sorted(suspects, key=lambda one: -one.score)


def hit(suspect: Suspect, errors: list[dict[str, Any]], results: Results) -> int | None:
    """Returns the index of the planted error that a suspect is."""
    for index, error in enumerate(errors):
        if suspect.object is not None and error["object"] == suspect.object:
            return index
        if suspect.object is None and error["mask"] is not None and error["image"] == suspect.image_id:
            assert suspect.result is not None
            if pairwise_iou([results[suspect.result]["segmentation"]], [error["mask"]])[0, 0] >= 0.5:
                return index
    return None


if __name__ == "__main__":
    sys.exit(main())
