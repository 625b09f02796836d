"""All that can be said of COCO results without the model that made them, as one dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.average_precision import average_precisions, mean, rank
from maskrcnn_ext.evaluation.calibration import reliability
from maskrcnn_ext.evaluation.confusion import confusion_matrix
from maskrcnn_ext.evaluation.error_split import KINDS, ErrorSplit, split_errors
from maskrcnn_ext.evaluation.matching import ALL_AREAS, IOUS, RECALLS, match
from maskrcnn_ext.evaluation.nuclei import nuclei_metrics
from maskrcnn_ext.evaluation.operating_point import at_threshold, best_threshold, pool, scores_at
from maskrcnn_ext.evaluation.overlaps import TASKS, Pairs, pair_up
from maskrcnn_ext.evaluation.results import Results, ResultsLike, load_results
from maskrcnn_ext.evaluation.tables import plain
from maskrcnn_ext.evaluation.truth import Truth, TruthLike, load_truth

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
        truth: a COCO annotation file or its content, pycocotools' COCO, or a data set, see :func:`load_truth`.
        results: a COCO results file or its content.
        tasks: of ``bbox``, ``segm``, ``boundary`` (segm, where the outlines must agree as well: arXiv:2103.16562; slow) and ``keypoints``;
            None for those but ``boundary`` that both truth and results allow.
        iou: from which a detection is right, for all that is not AP or AR.
        score_threshold: from which a detection is used, for all that looks at a model in use.
        max_detections: how many of an image and class count; None for all, and for COCO's 20 of keypoints.
        sigmas: of the keypoints; none for the data set's own, or COCO's 17.
        num_area_bins: number of ranges of area with as many objects each.

    Returns:
        What ``json.dumps`` takes. AP, AR and delta AP are in percent, as Detectron2's; all other values go from 0 to 1. None stands where
        there is nothing to measure. Images and classes are in the order of their ids. ::

            {"settings": {"iou", "score_threshold", "max_detections"},
             "data": {"images", "objects", "crowds", "results"},                  # numbers; crowds are no objects
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
                 "best": {"score", "precision", "recall", "F1"},                  # the one threshold for all classes
                 "curves": {"recall": [101 values],
                            "precision": {"0.50": [[101 values] or None, ... K], "0.75": [...]}},
                 "confusion": {"labels": [K names, "background"], "counts": [[K + 1 numbers], ... K + 1]},
                                                                                  # rows: objects; columns: detections
                 "errors": {"AP": AP at iou, "counts": {kind: number}, "delta_AP": {kind: AP}},
                     # kinds: classification, localisation, both, duplicate, background, missed;
                     # delta_AP has false_positive and false_negative, too
                 "calibration": {"ECE", "bins": [{"low", "high", "count", "score", "precision"}, ... 10]},
                 "images": [{"image_id", "file_name", "objects", "true_positives", "false_positives", "missed", "F1", "quality",
                             "wrong": [index, ...],                               # into the results: false positives, surest first
                             "not_found": [number, ...]}, ...],                   # annotations, counted from 0 as in the file
                     # at score_threshold; quality: sum of the IoUs of true positives / (their number + half of all errors)
                 "wrong": [{"result", "image_id", "class", "score", "kind"}, ...],  # all such false positives, the surest first
                 "nuclei": {"DSB2018", "PQ", "SQ", "RQ", "AJI"},                  # of segm alone; means over images
             }, ...}}

    Raises:
        InputError: settings out of range, data of another form or of other images, or a task that it does not allow.
    """
    if not (0 < iou <= 1 and 0 <= score_threshold <= 1):
        raise InputError(
            f"iou is {iou} and score_threshold {score_threshold}: expected numbers from 0 (iou: above 0) to 1"
        )
    if max_detections is not None and max_detections < 1:
        raise InputError(f"max_detections is {max_detections}: expected at least 1")
    known = load_truth(truth)
    found = load_results(results, known)
    crowds = sum(own["iscrowd"] for own in known.annotations)
    summary: dict[str, Any] = {
        "settings": {"iou": iou, "score_threshold": score_threshold, "max_detections": max_detections},
        "data": {
            "images": len(known.images),
            "objects": len(known.annotations) - crowds,
            "crowds": crowds,
            "results": len(found),
        },
        "classes": [category["name"] for category in known.categories],
        "tasks": {},
    }
    for task in tasks if tasks is not None else possible_tasks(known, found):
        pairs = pair_up(known, found, task, max_detections=max_detections, sigmas=sigmas)
        of_task = _Task(known, pairs, iou, score_threshold, num_area_bins).summary()
        if task == "segm":
            of_task["nuclei"] = nuclei_metrics(known, found, score_threshold=score_threshold)
        summary["tasks"][task] = of_task
    told: dict[str, Any] = plain(summary)
    return told


def possible_tasks(truth: Truth, results: Results) -> list[str]:
    """Returns which of bbox, segm and keypoints can be measured; of no results, those that the ground truth is made for."""

    def able(task: str) -> bool:
        key = {"segm": "segmentation"}.get(task, task)
        held = all(result.get(key) for result in results) and bool(results or truth.annotations)
        return task == "bbox" or (truth.allows(task) and held)

    return [task for task in TASKS if task != "boundary" and able(task)]


class _Task:
    """The summary of one task, from one matching."""

    def __init__(self, truth: Truth, pairs: Pairs, iou: float, score_threshold: float, num_area_bins: int) -> None:
        self.truth = truth
        self.names = [category["name"] for category in truth.categories]
        self.score_threshold = score_threshold
        self.bins = area_bins(pairs.object_area[~pairs.ignored], num_area_bins)
        thresholds = IOUS if np.isclose(IOUS, iou).any() else np.append(IOUS, iou)
        self.matching = match(pairs, thresholds, [ALL_AREAS, *_COCO_AREAS.values(), *self.bins])
        self.iou = self.matching.at(iou)
        self.rankings = [rank(self.matching, category, self.iou) for category in range(len(self.names))]

    def summary(self) -> dict[str, Any]:
        ap, recall, curves = average_precisions(self.matching)
        ap, recall = ap[: len(IOUS)], recall[: len(IOUS)]
        split = split_errors(self.matching, self.iou)
        everything = pool(self.rankings)
        error, bins = reliability(everything)
        return {
            **_averages(ap, recall),
            "AP_by_iou": {f"{level:.2f}": 100 * mean(row) for level, row in zip(IOUS, ap, strict=True)},
            "areas": [
                {"name": name, **self._area(index, low, high)}
                for index, (name, (low, high)) in enumerate(_COCO_AREAS.items(), start=1)
            ],
            "area_bins": [
                self._area(index, low, high) for index, (low, high) in enumerate(self.bins, start=1 + len(_COCO_AREAS))
            ],
            "per_class": [
                self._of_class(index, ap[:, [index]], recall[:, [index]]) for index in range(len(self.names))
            ],
            "at_threshold": at_threshold(everything, self.score_threshold),
            "best": best_threshold(everything),
            "curves": {
                "recall": RECALLS,
                "precision": {
                    f"{level:.2f}": [None if np.isnan(curve[0]) else curve for curve in curves[self.matching.at(level)]]
                    for level in (0.5, 0.75)
                },
            },
            "confusion": {
                "labels": [*self.names, "background"],
                "counts": confusion_matrix(self.matching, self.iou, self.score_threshold),
            },
            "errors": {"AP": split.ap, "counts": split.counts, "delta_AP": split.delta_ap},
            "calibration": {"ECE": error, "bins": bins},
            "images": self._images(),
            "wrong": self._wrong(split),
        }

    def _area(self, index: int, low: float, high: float) -> dict[str, Any]:
        ap, recall, _ = average_precisions(self.matching, index)
        objects = int((~self.matching.object_ignored[index]).sum())
        averages = _averages(ap[: len(IOUS)], recall[: len(IOUS)])
        return {"low": low, "high": high, "objects": objects, "AP": averages["AP"], "AR": averages["AR"]}

    def _of_class(self, index: int, ap: np.ndarray, recall: np.ndarray) -> dict[str, Any]:
        ranking = self.rankings[index]
        return {
            "class": self.names[index],
            "objects": ranking.positives,
            **_averages(ap, recall),
            **at_threshold(ranking, self.score_threshold),
            "best": best_threshold(ranking),
            "ECE": reliability(ranking)[0],
        }

    def _images(self) -> list[dict[str, Any]]:
        matching, pairs = self.matching, self.matching.pairs
        found = matching.found[0, self.iou]
        kept = (pairs.score >= self.score_threshold) & ~matching.ignored[0, self.iou]
        # Where the objects stand in the file: they are sorted by image.
        order = {image["id"]: index for index, image in enumerate(self.truth.images)}
        number = np.argsort([order[own["image_id"]] for own in self.truth.annotations], kind="stable")
        rows = []
        for index, image in enumerate(self.truth.images):
            detections, objects = pairs.of_image(index)
            own = np.flatnonzero(kept[detections])
            hits = own[found[detections][own] >= 0]
            hit_objects = found[detections][hits] - objects.start
            left = np.setdiff1d(np.flatnonzero(~matching.object_ignored[0, objects]), hit_objects)
            wrong = own[found[detections][own] < 0]
            scores = scores_at(len(hits), len(wrong), len(left))
            overlap = pairs.overlaps[index][hits, hit_objects].sum()
            rows.append(
                {
                    "image_id": image["id"],
                    "file_name": image.get("file_name"),
                    "objects": len(hits) + len(left),
                    "true_positives": len(hits),
                    "false_positives": len(wrong),
                    "missed": len(left),
                    "F1": scores["F1"],
                    "quality": overlap / len(hits) * scores["F1"] if len(hits) else scores["F1"],
                    "wrong": pairs.result[detections][wrong],
                    "not_found": number[objects][left],
                }
            )
        return rows

    def _wrong(self, split: ErrorSplit) -> list[dict[str, Any]]:
        pairs = self.matching.pairs
        wrong = np.flatnonzero((split.kind >= 0) & (pairs.score >= self.score_threshold))
        return [
            {
                "result": pairs.result[index],
                "image_id": self.truth.images[pairs.image[index]]["id"],
                "class": self.names[pairs.category[index]],
                "score": pairs.score[index],
                "kind": KINDS[split.kind[index]],
            }
            for index in wrong[np.argsort(-pairs.score[wrong], kind="stable")]
        ]


def area_bins(areas: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Returns ranges of area with about as many objects each, cut at the quantiles; the first begins at 0 and the last has no end.

    Args:
        areas: (M) of the objects in pixels.
        count: number of ranges; fewer come back where many objects have the same area.
    """
    cuts = np.unique(np.quantile(areas, np.linspace(0, 1, count + 1)[1:-1])) if len(areas) else np.zeros(0)
    # Both ends of a range belong to it.
    lows = [0.0, *np.nextafter(cuts, np.inf).tolist()]
    return list(zip(lows, [*cuts.tolist(), np.inf], strict=True))


def _averages(ap: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    values = {"AP": ap, "AP50": ap[0], "AP75": ap[5], "AR": recall}
    return {name: 100 * mean(of) for name, of in values.items()}
