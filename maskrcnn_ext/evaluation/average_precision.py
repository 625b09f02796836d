"""COCO's average precision: matches detections to objects, ranks them, and averages precision over recalls.

The numbers equal those of pycocotools' ``evaluateImg`` and ``accumulate``. All other metrics use the same matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.evaluation.overlaps import Pairs

# COCO's IoU thresholds, and the recalls at which precision is read.
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
ALL_AREAS = (0.0, np.inf)


@dataclass(frozen=True)
class Matching:
    """The objects that N detections found, at T IoU thresholds, and for M objects in A ranges of area.

    Attributes:
        pairs: the matches.
        thresholds: (T) IoU.
        found: (A, T, N) int32, index of the object that the detection found; -1 if none.
        ignored: (A, T, N) bool, detections that count neither as right nor as wrong: they found a crowd or an object of another area,
            or they found nothing and have another area themselves.
        object_ignored: (A, M) bool, objects that need not be found.
    """

    pairs: Pairs
    thresholds: np.ndarray
    found: np.ndarray
    ignored: np.ndarray
    object_ignored: np.ndarray

    def index_of(self, iou: float) -> int:
        """Returns the index of an IoU threshold."""
        return int(np.flatnonzero(np.isclose(self.thresholds, iou))[0])


def match(pairs: Pairs, thresholds: np.ndarray, areas: Sequence[tuple[float, float]] = (ALL_AREAS,)) -> Matching:
    """Matches each detection, highest score first, to the free object of its class with the highest overlap.

    Args:
        pairs: detections, objects and their overlaps.
        thresholds: (T) lowest IoU of a match.
        areas: A ranges of the objects' areas in pixels, both ends included.

    Example:
        ::

            truth = load_truth("coco:val.json@images")
            matching = match(pair_up(truth, load_results("results.json", truth), "segm"), IOUS)
            ap, recall, curves = average_precisions(matching)
    """
    low, high = np.array(areas).T[:, :, None]
    object_ignored = pairs.ignored | (pairs.object_area < low) | (pairs.object_area > high)
    found = np.full((len(low), len(thresholds), len(pairs.image)), -1, dtype=np.int32)
    # Rounding may make the IoU of a perfect detection less than 1.
    lowest = np.minimum(thresholds, 1 - 1e-10)
    for index, overlap in enumerate(pairs.overlaps):
        detections, objects = pairs.of_image(index)
        categories = pairs.category[detections]
        for category in np.unique(pairs.object_category[objects]) if overlap.size else ():
            rows = np.flatnonzero(categories == category)
            # Reversed, because pycocotools takes the last of equal overlaps.
            columns = np.flatnonzero(pairs.object_category[objects] == category)[::-1]
            indices = columns + objects.start
            chosen = _match_class(
                overlap[rows[:, None], columns], pairs.crowd[indices], object_ignored[:, indices], lowest
            )
            found[:, :, rows + detections.start] = np.where(chosen < 0, -1, indices[chosen])
    outside = (pairs.area < low) | (pairs.area > high)
    is_match = found >= 0
    found_ignored = np.zeros_like(is_match)
    for area in range(len(low) if object_ignored.size else 0):
        found_ignored[area] = object_ignored[area][found[area]]
    ignored = np.where(is_match, found_ignored, outside[:, None])
    return Matching(pairs, thresholds, found, ignored, object_ignored)


def _match_class(overlap: np.ndarray, crowd: np.ndarray, ignored: np.ndarray, lowest: np.ndarray) -> np.ndarray:
    """Matches the D detections and G objects of one image and class.

    Args:
        overlap: (D, G), detections by descending score.
        crowd: (G).
        ignored: (A, G).
        lowest: (T) lowest IoU of a match.

    Returns:
        (A, T, D) int, index of the object or -1.
    """
    if (
        len(crowd) == 1
    ):  # the most common case by far: the first of the detections that overlap enough, or a crowd's all
        hit = overlap[:, 0] >= lowest[:, None]
        if not crowd[0]:
            hit &= hit.cumsum(axis=1) == 1
        return np.broadcast_to(np.where(hit, 0, -1), (len(ignored), *hit.shape))
    chosen = np.full((len(ignored), len(lowest), len(overlap)), -1, dtype=np.int64)
    free = np.ones((len(ignored), len(lowest), len(crowd)), dtype=bool)
    counted = ~ignored[:, None]
    for row in np.flatnonzero((overlap >= lowest.min()).any(axis=1)):
        candidates = free & (overlap[row] >= lowest[:, None])
        # An object that counts goes before an ignored one, even one that overlaps more.
        best = np.where(candidates & counted, overlap[row], -1.0)
        best = np.where((best >= 0).any(axis=2, keepdims=True), best, np.where(candidates, overlap[row], -1.0))
        column = best.argmax(axis=2)
        chosen[:, :, row] = np.where(candidates.any(axis=2), column, -1)
        taken = candidates.any(axis=2, keepdims=True) & (np.arange(len(crowd)) == column[:, :, None]) & ~crowd
        free &= ~taken
    return chosen


@dataclass(frozen=True)
class Ranking:
    """The n detections of a class that count, by descending score.

    Attributes:
        detections: (n) int64, index into the matching's detections.
        score: (n) float64.
        hit: (n) bool, whether the detection found an object.
        positives: number of objects to find.
    """

    detections: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    positives: int


def rank(matching: Matching, category: int, threshold: int, area: int = 0) -> Ranking:
    """Ranks the detections of a class. Detections of equal score stay in the order of the images.

    Args:
        matching: detections and the objects that they found.
        category: index of the class.
        threshold: index of the IoU threshold.
        area: index of the range of area.
    """
    pairs = matching.pairs
    detections = pairs.by_class[category]
    detections = detections[~matching.ignored[area, threshold, detections]]
    positives = int(((pairs.object_category == category) & ~matching.object_ignored[area]).sum())
    return Ranking(detections, pairs.score[detections], matching.found[area, threshold, detections] >= 0, positives)


def precision_at_recalls(hit: np.ndarray, positives: int) -> np.ndarray:
    """Returns, for each of COCO's 101 recalls, the highest precision at that recall or above; 0 for recalls that are not reached.

    Args:
        hit: (n) bool, whether each detection found an object, by descending score.
        positives: number of objects to find, above 0.

    Returns:
        (101) float64.

    Example:
        >>> precision_at_recalls(np.array([True, False]), positives=2)[[0, 50, 51]].round(3).tolist()
        [1.0, 1.0, 0.0]
    """
    hits = np.cumsum(hit)
    recall = hits / positives
    precision = hits / (np.arange(1, len(hit) + 1) + np.spacing(1))
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return best[np.searchsorted(recall, RECALLS, side="left")]


def average_precisions(matching: Matching, area: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures each of K classes at each of T IoU thresholds.

    Returns:
        AP (T, K), recall of all detections (T, K) and precision at the 101 recalls (T, K, 101). Values are from 0 to 1, nan for a class
        without objects.
    """
    shape = (len(matching.thresholds), matching.pairs.num_classes)
    recall, curves = np.full(shape, np.nan), np.full((*shape, len(RECALLS)), np.nan)
    for category in range(shape[1]):
        for threshold in range(shape[0]):
            ranking = rank(matching, category, threshold, area)
            if ranking.positives:
                curves[threshold, category] = precision_at_recalls(ranking.hit, ranking.positives)
                recall[threshold, category] = ranking.hit.sum() / ranking.positives
    return curves.mean(axis=2), recall, curves


def nan_mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are not nan; nan, without NumPy's warning, if all are.

    Example:
        >>> nan_mean(np.array([1.0, np.nan, 3.0])), nan_mean(np.array([]))
        (2.0, nan)
    """
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
