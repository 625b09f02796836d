"""Average precision and recall of a matching, as pycocotools' ``accumulate`` has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.evaluation.matching import RECALLS, Matching


@dataclass(frozen=True)
class Ranking:
    """The n detections of a class that count, by falling score.

    Attributes:
        detections: (n) int64, index into the matching's detections.
        score: (n) float64.
        hit: (n) bool, whether an object was found.
        positives: number of objects to find.
    """

    detections: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    positives: int


def rank(matching: Matching, category: int, threshold: int, area: int = 0) -> Ranking:
    """Returns a class's detections at a threshold and range of area, both by index; equal scores in the order of the images."""
    pairs = matching.pairs
    own = pairs.by_class[category]
    own = own[~matching.ignored[area, threshold, own]]
    positives = int(((pairs.object_category == category) & ~matching.object_ignored[area]).sum())
    return Ranking(own, pairs.score[own], matching.found[area, threshold, own] >= 0, positives)


def precision_at_recalls(hit: np.ndarray, positives: int) -> np.ndarray:
    """Returns the best precision at each of COCO's 101 recalls or beyond, (101) float64: 0 where that is never reached.

    Args:
        hit: (n) bool, by falling score.
        positives: number of objects to find, above 0.
    """
    hits = np.cumsum(hit)
    recall = hits / positives
    precision = hits / (np.arange(1, len(hit) + 1) + np.spacing(1))
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return best[np.searchsorted(recall, RECALLS, side="left")]


def average_precisions(matching: Matching, area: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures every class at every threshold.

    Returns:
        AP (T, K), recall of all detections (T, K) and precision at the 101 recalls (T, K, 101), each from 0 to 1 and nan for a class
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


def mean(values: np.ndarray) -> float:
    """Returns the mean of what is not nan; nan where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
