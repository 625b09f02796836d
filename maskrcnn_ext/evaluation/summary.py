"""Measures COCO results: all metrics of boxes, masks and keypoints in one dict."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from maskrcnn_ext.common.ranges import is_at_least, is_share
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.average_precision import (
    ALL_AREAS,
    IOUS,
    RECALLS,
    average_precisions,
    match,
    nan_mean,
    rank,
)
from maskrcnn_ext.evaluation.error_split import ERROR_KINDS, ErrorSplit, split_errors
from maskrcnn_ext.evaluation.lvis import has_lvis_rules, lvis_metrics
from maskrcnn_ext.evaluation.nuclei import is_like_nuclei, nuclei_metrics
from maskrcnn_ext.evaluation.operating_point import (
    best_threshold,
    calibration,
    confusion_matrix,
    merge_rankings,
    rates_at_threshold,
    rates_of_counts,
)
from maskrcnn_ext.evaluation.overlaps import TASKS, Pairs, pair_up
from maskrcnn_ext.evaluation.results import Results, ResultsLike, load_results
from maskrcnn_ext.evaluation.stored_results import columns_of
from maskrcnn_ext.evaluation.tables import to_json_values
from maskrcnn_ext.evaluation.truth import Truth, TruthLike, load_truth

logger = logging.getLogger(__name__)

# COCO's ranges of area in pixels, both ends included.
_COCO_AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}


def evaluate(
    truth: TruthLike,
    results: ResultsLike,
    *,
    tasks: Sequence[str] | None = None,
    iou: float = 0.5,
    score_threshold: float = 0.5,
    max_detections: int | None = None,
    sigmas: Sequence[float] = (),
    num_area_bins: int = 4,
) -> dict[str, Any]:
    """Measures COCO results.

    Args:
        truth: a COCO annotation file or its content, pycocotools' COCO, or a dataset; see :func:`load_truth`.
        results: a COCO results file or its content.
        tasks: some of ``bbox``, ``segm``, ``boundary`` (segm with outlines that must agree, too: arXiv:2103.16562; slow) and
            ``keypoints``. By default, all but ``boundary`` that both truth and results allow.
        iou: IoU from which a detection is right, for all metrics but AP and AR.
        score_threshold: score from which a detection is used, for all metrics of a model in use.
        max_detections: limit of detections per image and class; None for all (for keypoints, COCO's 20).
        sigmas: of the keypoints; by default those of the dataset, or COCO's 17.
        num_area_bins: number of ranges of area with the same number of objects each.

    Returns:
        A dict that ``json.dumps`` accepts. AP, AR and delta AP are in percent, as in Detectron2; all other values are from 0 to 1. Values
        that cannot be measured are None. Images and classes are in the order of their ids. ::

            {"settings": {"iou", "score_threshold", "max_detections"},
             "data": {"images", "objects", "crowds", "results"},                  # counts; objects are without crowds
             "classes": [name, ...],                                              # K
             "tasks": {task: {
                 "AP", "AP50", "AP75", "AR",
                 "AP_by_iou": {"0.50": AP, "0.55": AP, ..., "0.95": AP},
                 "areas": [{"name", "low", "high", "objects", "AP", "AR"}, ...],  # COCO's small, medium, large; high: None for no end
                 "area_bins": [{"low", "high", "objects", "AP", "AR"}, ...],      # fitted: each as many objects; area in pixels
                 "per_class": [{"class", "objects", "AP", "AP50", "AP75", "AR",   # K, at score_threshold from here on:
                                "true_positives", "false_positives", "missed", "precision", "recall", "F1",
                                "best": {"score", "precision", "recall", "F1"},   # at the threshold with the highest F1
                                "ECE"}, ...],
                 "at_threshold": {"true_positives", "false_positives", "missed", "precision", "recall", "F1"},  # all classes
                 "best": {"score", "precision", "recall", "F1"},                  # one threshold for all classes
                 "curves": {"recall": [101 values],
                            "precision": {"0.50": [[101 values] or None, ... K], "0.75": [...]}},
                 "confusion": {"labels": [K names, "background"], "counts": [[K + 1 numbers], ... K + 1]},
                                                                                  # rows: objects; columns: detections
                 "errors": {"AP": AP at iou, "counts": {kind: number}, "delta_AP": {kind: AP}},
                     # kinds: classification, localisation, both, duplicate, background, missed;
                     # delta_AP also has false_positive and false_negative
                 "calibration": {"ECE", "bins": [{"low", "high", "count", "score", "precision"}, ... 10]},
                 "images": [{"image_id", "file_name", "objects", "true_positives", "false_positives", "missed", "F1", "quality",
                             "wrong": [index, ...],                               # into the results: false positives, highest score first
                             "not_found": [number, ...]}, ...],                   # indices of annotations in the file
                     # at score_threshold; quality: sum of the IoUs of true positives / (their number + half the number of errors)
                 "wrong": [{"result", "image_id", "class", "score", "kind"}, ...],  # all these false positives, highest score first
                 "lvis": {"AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"},  # bbox and segm, if images list verified classes
                 "nuclei": {"DSB2018", "PQ", "SQ", "RQ", "AJI"},                  # segm of one class with 5 objects an image or more
             }, ...}}

    Raises:
        InputError: a setting is out of range, the data are malformed or of other images, or they do not allow a task.

    Example:
        >>> cat = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4]}
        >>> image = {"id": 1, "height": 8, "width": 8}
        >>> truth = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [cat]}
        >>> metrics = evaluate(truth, [{**cat, "score": 0.9}])["tasks"]["bbox"]
        >>> round(metrics["AP"]), metrics["at_threshold"]["F1"]
        (100, 1.0)
    """
    if not (is_share(iou, above_zero=True) and is_share(score_threshold)):
        raise InputError(
            f"iou is {iou} and score_threshold {score_threshold}: expected numbers from 0 (iou: above 0) to 1"
        )
    if max_detections is not None and not is_at_least(max_detections, 1):
        raise InputError(f"max_detections is {max_detections}: expected at least 1")
    loaded_truth = load_truth(truth)
    loaded_results = load_results(results, loaded_truth)
    crowds = sum(annotation["iscrowd"] for annotation in loaded_truth.annotations)
    summary: dict[str, Any] = {
        "settings": {"iou": iou, "score_threshold": score_threshold, "max_detections": max_detections},
        "data": {
            "images": len(loaded_truth.images),
            "objects": len(loaded_truth.annotations) - crowds,
            "crowds": crowds,
            "results": len(loaded_results),
        },
        "classes": [category["name"] for category in loaded_truth.categories],
        "tasks": {},
    }
    for task in tasks if tasks is not None else possible_tasks(loaded_truth, loaded_results):
        pairs = pair_up(loaded_truth, loaded_results, task, max_detections=max_detections, sigmas=sigmas)
        metrics = _TaskMetrics(loaded_truth, pairs, iou, score_threshold, num_area_bins).to_dict()
        if task in ("bbox", "segm") and has_lvis_rules(loaded_truth):
            if find_spec("hotcoco"):
                metrics["lvis"] = lvis_metrics(loaded_truth, loaded_results, task)
            else:
                logger.warning('%s is not measured by the rules of LVIS: pip install "maskrcnn_ext[eval]"', task)
        if task == "segm" and is_like_nuclei(loaded_truth):
            metrics["nuclei"] = nuclei_metrics(loaded_truth, loaded_results, score_threshold=score_threshold)
        summary["tasks"][task] = metrics
    json_values: dict[str, Any] = to_json_values(summary)
    return json_values


def possible_tasks(truth: Truth, results: Results) -> list[str]:
    """Returns which of bbox, segm and keypoints can be measured; without results, those that the ground truth allows."""
    lacking = columns_of(results).lacking

    def is_possible(task: str) -> bool:
        key = {"segm": "segmentation"}.get(task, task)
        results_allow = lacking[key] is None and bool(results or truth.annotations)
        if results_allow and results and not truth.allows(task):
            logger.warning("%s is not evaluated: %s", task, truth.why_not(task))
        return task == "bbox" or (truth.allows(task) and results_allow)

    return [task for task in TASKS if task != "boundary" and is_possible(task)]


class _TaskMetrics:
    """All metrics of one task, computed from one matching."""

    def __init__(self, truth: Truth, pairs: Pairs, iou: float, score_threshold: float, num_area_bins: int) -> None:
        self.truth = truth
        self.names = [category["name"] for category in truth.categories]
        self.score_threshold = score_threshold
        self.bins = area_bins(pairs.object_area[~pairs.ignored], num_area_bins)
        thresholds = IOUS if np.isclose(IOUS, iou).any() else np.append(IOUS, iou)
        self.matching = match(pairs, thresholds, [ALL_AREAS, *_COCO_AREAS.values(), *self.bins])
        self.iou = self.matching.index_of(iou)
        self.rankings = [rank(self.matching, category, self.iou) for category in range(len(self.names))]

    def to_dict(self) -> dict[str, Any]:
        """Returns the metrics that :func:`evaluate` documents, as NumPy's types."""
        ap, recall, curves = average_precisions(self.matching)
        ap, recall = ap[: len(IOUS)], recall[: len(IOUS)]
        split = split_errors(self.matching, self.iou)
        all_classes = merge_rankings(self.rankings)
        error, bins = calibration(all_classes)
        return {
            **_averages(ap, recall),
            "AP_by_iou": {f"{level:.2f}": 100 * nan_mean(row) for level, row in zip(IOUS, ap, strict=True)},
            "areas": [
                {"name": name, **self._area_metrics(index, low, high)}
                for index, (name, (low, high)) in enumerate(_COCO_AREAS.items(), start=1)
            ],
            "area_bins": [
                self._area_metrics(index, low, high)
                for index, (low, high) in enumerate(self.bins, start=1 + len(_COCO_AREAS))
            ],
            "per_class": [
                self._class_metrics(index, ap[:, [index]], recall[:, [index]]) for index in range(len(self.names))
            ],
            "at_threshold": rates_at_threshold(all_classes, self.score_threshold),
            "best": best_threshold(all_classes),
            "curves": {
                "recall": RECALLS,
                "precision": {
                    f"{level:.2f}": [
                        None if np.isnan(curve[0]) else curve for curve in curves[self.matching.index_of(level)]
                    ]
                    for level in (0.5, 0.75)
                },
            },
            "confusion": {
                "labels": [*self.names, "background"],
                "counts": confusion_matrix(self.matching, self.iou, self.score_threshold),
            },
            "errors": {"AP": split.ap, "counts": split.counts, "delta_AP": split.delta_ap},
            "calibration": {"ECE": error, "bins": bins},
            "images": self._image_metrics(),
            "wrong": self._wrong_detections(split),
        }

    def _area_metrics(self, index: int, low: float, high: float) -> dict[str, Any]:
        ap, recall, _ = average_precisions(self.matching, index)
        objects = int((~self.matching.object_ignored[index]).sum())
        averages = _averages(ap[: len(IOUS)], recall[: len(IOUS)])
        return {"low": low, "high": high, "objects": objects, "AP": averages["AP"], "AR": averages["AR"]}

    def _class_metrics(self, index: int, ap: np.ndarray, recall: np.ndarray) -> dict[str, Any]:
        ranking = self.rankings[index]
        return {
            "class": self.names[index],
            "objects": ranking.positives,
            **_averages(ap, recall),
            **rates_at_threshold(ranking, self.score_threshold),
            "best": best_threshold(ranking),
            "ECE": calibration(ranking)[0],
        }

    def _image_metrics(self) -> list[dict[str, Any]]:
        matching, pairs = self.matching, self.matching.pairs
        found = matching.found[0, self.iou]
        kept = (pairs.score >= self.score_threshold) & ~matching.ignored[0, self.iou]
        # Objects are sorted by image: this is the index of each one's annotation in the file.
        order = {image["id"]: index for index, image in enumerate(self.truth.images)}
        annotation = np.argsort([order[found["image_id"]] for found in self.truth.annotations], kind="stable")
        rows = []
        for index, image in enumerate(self.truth.images):
            detections, objects = pairs.of_image(index)
            used = np.flatnonzero(kept[detections])
            hits = used[found[detections][used] >= 0]
            hit_objects = found[detections][hits] - objects.start
            missed = np.setdiff1d(np.flatnonzero(~matching.object_ignored[0, objects]), hit_objects)
            wrong = used[found[detections][used] < 0]
            f1 = rates_of_counts(len(hits), len(wrong), len(missed))["F1"]
            overlap = pairs.overlaps[index][hits, hit_objects].sum()
            rows.append(
                {
                    "image_id": image["id"],
                    "file_name": image.get("file_name"),
                    "objects": len(hits) + len(missed),
                    "true_positives": len(hits),
                    "false_positives": len(wrong),
                    "missed": len(missed),
                    "F1": f1,
                    "quality": overlap / len(hits) * f1 if len(hits) else f1,
                    "wrong": pairs.result[detections][wrong],
                    "not_found": annotation[objects][missed],
                }
            )
        return rows

    def _wrong_detections(self, split: ErrorSplit) -> list[dict[str, Any]]:
        pairs = self.matching.pairs
        wrong = np.flatnonzero((split.kind >= 0) & (pairs.score >= self.score_threshold))
        return [
            {
                "result": pairs.result[index],
                "image_id": self.truth.images[pairs.image[index]]["id"],
                "class": self.names[pairs.category[index]],
                "score": pairs.score[index],
                "kind": ERROR_KINDS[split.kind[index]],
            }
            for index in wrong[np.argsort(-pairs.score[wrong], kind="stable")]
        ]


def area_bins(areas: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Splits areas at their quantiles into ranges with about the same number of objects each.

    Args:
        areas: (M) areas of the objects in pixels.
        count: number of ranges; there are fewer if many objects have the same area.

    Returns:
        The lowest and highest area of each range, both included. The first starts at 0, the last ends at infinity.

    Example:
        >>> area_bins(np.array([1.0, 2.0, 3.0]), 2)
        [(0.0, 2.0), (2.0000000000000004, inf)]
    """
    cuts = np.unique(np.quantile(areas, np.linspace(0, 1, count + 1)[1:-1])) if len(areas) else np.zeros(0)
    lows = [0.0, *np.nextafter(cuts, np.inf).tolist()]
    return list(zip(lows, [*cuts.tolist(), np.inf], strict=True))


def _averages(ap: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    values = {"AP": ap, "AP50": ap[0], "AP75": ap[5], "AR": recall}
    return {name: 100 * nan_mean(of_metric) for name, of_metric in values.items()}
