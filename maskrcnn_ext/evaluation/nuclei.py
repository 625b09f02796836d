"""Metrics for cell nuclei, where each pixel belongs to at most one object: DSB2018, panoptic quality, aggregated Jaccard index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn_ext.evaluation.average_precision import IOUS, nan_mean
from maskrcnn_ext.evaluation.results import Results
from maskrcnn_ext.evaluation.stored_results import columns_of, scores_of
from maskrcnn_ext.evaluation.truth import Truth
from maskrcnn_ext.ops.rle import rle_area, rle_box, segmentation_to_rle
from maskrcnn_ext.ops.rle_segments import rle_window

METRICS = ("DSB2018", "PQ", "SQ", "RQ", "AJI")


# Fewest objects of an image on average, with one class, for which these metrics are usual.
_MIN_OBJECTS = 5


def is_like_nuclei(truth: Truth) -> bool:
    """Returns whether a data set is of the kind that these metrics are for: one class, and several objects an image.

    Example:
        >>> is_like_nuclei(Truth("photos", [{"id": 1}], [{"id": 1}], [{"id": 1}]))
        False
    """
    return len(truth.categories) == 1 and len(truth.annotations) >= _MIN_OBJECTS * max(len(truth.images), 1)


def nuclei_metrics(truth: Truth, results: Results, *, score_threshold: float = 0.5) -> dict[str, float]:
    """Measures masks, ignoring their classes. All values are means over the images, from 0 to 1.

    A pixel of several detections belongs to that of the highest score, a pixel of several objects to the smallest. Pixels of crowds are
    left out.

    Args:
        truth: ground truth with masks.
        results: detections with masks.
        score_threshold: lowest score of a detection.

    Returns:
        The metrics of :func:`label_metrics`.
    """
    objects: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in truth.images}
    detections: dict[Any, list[int]] = {image["id"]: [] for image in truth.images}
    for found in truth.annotations:
        objects[found["image_id"]].append(found)
    columns = columns_of(results)
    scores = scores_of(columns, of_masks=True)
    for index in np.flatnonzero(scores >= score_threshold).tolist():
        detections[columns.image_ids[index]].append(index)
    rows = []
    for image in truth.images:
        size = image["height"], image["width"]
        rles = [segmentation_to_rle(found["segmentation"], *size) for found in objects[image["id"]]]
        crowd = [bool(found["iscrowd"]) for found in objects[image["id"]]]
        masks = [rle for rle, is_crowd in zip(rles, crowd, strict=True) if not is_crowd]
        masks.sort(key=rle_area)
        ranked = sorted(detections[image["id"]], key=lambda index: -scores[index])
        labels = [label_image(masks, size), label_image([results[index]["segmentation"] for index in ranked], size)]
        outside = label_image([rle for rle, is_crowd in zip(rles, crowd, strict=True) if is_crowd], size) == 0
        rows.append(label_metrics(labels[0] * outside, labels[1] * outside))
    table = np.array([[row[name] for name in METRICS] for row in rows]).reshape(-1, len(METRICS))
    return {name: nan_mean(column) for name, column in zip(METRICS, table.T, strict=True)}


def label_image(rles: Sequence[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """Returns a label image (height, width) int32: 0 for the background, else the number, from 1, of the first mask with the pixel.

    Args:
        rles: masks as compressed RLE.
        size: height and width in pixels.
    """
    labels = np.zeros(size, dtype=np.int32)
    for number in range(len(rles), 0, -1):
        x0, y0, x1, y1 = (int(edge) for edge in rle_box(rles[number - 1]))
        labels[y0:y1, x0:x1][rle_window(rles[number - 1], x0, y0, x1, y1) > 0] = number
    return labels


def label_metrics(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Compares two label images.

    * ``DSB2018``: TP / (TP + FP + FN), the mean over the IoU thresholds 0.5, 0.55 ... 0.95, as in the Data Science Bowl 2018. A match must
      exceed the threshold.
    * ``PQ`` = ``SQ`` x ``RQ``: panoptic quality (arXiv:1801.00868, equations 1 and 2). ``RQ`` is F1 at an IoU above 0.5, ``SQ`` the mean
      IoU of these matches.
    * ``AJI``: aggregated Jaccard index (Kumar et al., IEEE TMI 2017, algorithm 1). Every object is joined with the detection of the
      highest IoU; the remaining detections count in full.

    Args:
        true: (height, width) numbers of objects with few gaps; 0 for the background.
        found: as `true`, numbers of detections.

    Returns:
        Values from 0 to 1. Without objects and detections, all are 1 but ``SQ``, which is nan without a match.

    Example:
        >>> one = np.array([[1, 1, 0, 0]])
        >>> label_metrics(one, one)["AJI"], label_metrics(one, 0 * one)["PQ"]
        (1.0, 0.0)
    """
    shape = int(true.max(initial=0)) + 1, int(found.max(initial=0)) + 1
    table = np.bincount(true.ravel().astype(np.int64) * shape[1] + found.ravel(), minlength=shape[0] * shape[1])
    table = table.reshape(shape)
    areas, found_areas = table.sum(axis=1)[1:], table.sum(axis=0)[1:]
    both = table[1:, 1:][areas > 0][:, found_areas > 0]
    areas, found_areas = areas[areas > 0], found_areas[found_areas > 0]
    union = areas[:, None] + found_areas - both
    iou = both / union
    num = len(areas) + len(found_areas)
    if num == 0:
        return {"DSB2018": 1.0, "PQ": 1.0, "SQ": float("nan"), "RQ": 1.0, "AJI": 1.0}
    # At an IoU above 0.5, an object has at most one match.
    hits = np.array([(iou > threshold).sum() for threshold in IOUS])
    tp = int(hits[0])
    quality = 2 * iou[iou > IOUS[0]].sum() / num
    values = {"DSB2018": float((hits / (num - hits)).mean()), "PQ": float(quality)}
    values |= {"SQ": float(iou[iou > IOUS[0]].mean()) if tp else float("nan"), "RQ": 2 * tp / num}
    shared, joined = 0, int(areas.sum())
    used = np.zeros(len(found_areas), dtype=bool)
    if both.size:
        best = iou.argmax(axis=1)
        rows = np.flatnonzero(iou.max(axis=1) > 0)
        shared = int(both[rows, best[rows]].sum())
        joined += int((union[rows, best[rows]] - areas[rows]).sum())
        used[best[rows]] = True
    values["AJI"] = shared / (joined + int(found_areas[~used].sum()))
    return values
