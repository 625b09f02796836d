"""Metrics of a model that is used at one score threshold: precision, recall, F1, confusion of classes and calibration."""

from __future__ import annotations

import numpy as np

from maskrcnn_ext.evaluation.average_precision import Matching, Ranking


def rates_of_counts(true_positives: int, false_positives: int, missed: int) -> dict[str, float]:
    """Returns ``precision``, ``recall`` and ``F1``; nan if the denominator is 0.

    Example:
        >>> rates_of_counts(true_positives=1, false_positives=1, missed=0)
        {'precision': 0.5, 'recall': 1.0, 'F1': 0.6666666666666666}
    """

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "precision": share(true_positives, true_positives + false_positives),
        "recall": share(true_positives, true_positives + missed),
        "F1": share(2 * true_positives, 2 * true_positives + false_positives + missed),
    }


def rates_at_threshold(ranking: Ranking, score_threshold: float) -> dict[str, float]:
    """Measures the detections whose score is at least the threshold.

    Returns:
        ``true_positives``, ``false_positives``, ``missed``, ``precision``, ``recall`` and ``F1``.
    """
    kept = ranking.hit[ranking.score >= score_threshold]
    hits = int(kept.sum())
    counts = {"true_positives": hits, "false_positives": len(kept) - hits, "missed": ranking.positives - hits}
    return {**counts, **rates_of_counts(*counts.values())}


def best_threshold(ranking: Ranking) -> dict[str, float]:
    """Finds the score threshold with the highest F1, the highest such threshold if several are equal.

    Returns:
        ``score``, ``precision``, ``recall`` and ``F1``; all nan if no detection found an object.
    """
    # Detections of equal score are kept together or not at all.
    last = np.flatnonzero(np.append(ranking.score[:-1] > ranking.score[1:], len(ranking.score) > 0))
    hits = np.cumsum(ranking.hit)[last]
    if not hits.any():
        return dict.fromkeys(("score", "precision", "recall", "F1"), float("nan"))
    best = int(np.argmax(2 * hits / (last + 1 + ranking.positives)))
    true_positives, kept = int(hits[best]), int(last[best]) + 1
    rates = rates_of_counts(true_positives, kept - true_positives, ranking.positives - true_positives)
    return {"score": float(ranking.score[last[best]]), **rates}


def merge_rankings(rankings: list[Ranking]) -> Ranking:
    """Merges the rankings of several classes into one."""
    score = np.concatenate([ranking.score for ranking in rankings])
    order = np.argsort(-score, kind="stable")
    return Ranking(
        np.concatenate([ranking.detections for ranking in rankings])[order],
        score[order],
        np.concatenate([ranking.hit for ranking in rankings])[order],
        sum(ranking.positives for ranking in rankings),
    )


def confusion_matrix(matching: Matching, threshold: int, score_threshold: float) -> np.ndarray:
    """Counts objects by their class and the class that they were detected as.

    Matched detections keep their objects. Each other detection, highest score first, is assigned to the free object of any class that
    it overlaps most. Crowds and the detections that found a crowd are left out.

    Args:
        matching: its first range must be all areas.
        threshold: index of the IoU threshold.
        score_threshold: lowest score of a detection.

    Returns:
        (K + 1, K + 1) int64 for K classes: rows are classes of objects, columns classes of detections, the last of each is the
        background. Each row but the last adds up to the number of objects of the class.
    """
    pairs = matching.pairs
    background = pairs.num_classes
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    found, lowest = matching.found[0, threshold], matching.thresholds[threshold]
    kept = (pairs.score >= score_threshold) & ~matching.ignored[0, threshold]
    free = ~matching.object_ignored[0]
    free[found[kept & (found >= 0)]] = False
    np.add.at(counts, (pairs.category[kept & (found >= 0)],) * 2, 1)
    for index, overlap in enumerate(pairs.overlaps):
        detections, objects = pairs.of_image(index)
        for detection in np.flatnonzero(kept[detections] & (found[detections] < 0)):
            candidates = np.where(free[objects], overlap[detection], -1.0)
            row = background
            if candidates.size and candidates.max() >= lowest:
                best = objects.start + int(candidates.argmax())
                row, free[best] = pairs.object_category[best], False
            counts[row, pairs.category[detections.start + detection]] += 1
    np.add.at(counts[:, background], pairs.object_category[free], 1)
    return counts


def calibration(ranking: Ranking, num_bins: int = 10) -> tuple[float, list[dict[str, float]]]:
    """Compares the scores of detections with their precision: of the detections with a score of 0.8, 80 % should be right.

    The error is the detection expected calibration error (D-ECE, arXiv:2004.13546) over the score: the mean difference of score and
    precision in bins of equal width, weighted by their number of detections.

    Args:
        ranking: detections; scores from 0 to 1.
        num_bins: number of bins.

    Returns:
        The error, from 0 to 1, nan without detections; and for every bin its ``low`` and ``high`` score, the ``count`` of detections, and
        their mean ``score`` and ``precision``, nan if it is empty.
    """
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, ranking.score, side="right") - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        score = np.bincount(bins, ranking.score, num_bins) / count
        precision = np.bincount(bins, ranking.hit.astype(float), num_bins) / count
        error = float(np.nansum(count * np.abs(score - precision)) / count.sum()) if count.any() else float("nan")
    columns = {"low": edges[:-1], "high": edges[1:], "count": count, "score": score, "precision": precision}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return error, [dict(zip(columns, row, strict=True)) for row in rows]
