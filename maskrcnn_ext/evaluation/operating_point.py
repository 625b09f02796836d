"""Precision, recall and F1 of a model that is used at one score threshold, and the threshold that suits a class best."""

from __future__ import annotations

import numpy as np

from maskrcnn_ext.evaluation.average_precision import Ranking


def scores_at(tp: int, fp: int, missed: int) -> dict[str, float]:
    """Returns ``precision``, ``recall`` and ``F1`` of counts; nan where there is nothing to divide by."""

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + missed),
        "F1": share(2 * tp, 2 * tp + fp + missed),
    }


def at_threshold(ranking: Ranking, score_threshold: float) -> dict[str, float]:
    """Measures the detections of at least a score.

    Returns:
        ``true_positives``, ``false_positives``, ``missed``, ``precision``, ``recall``, ``F1``.
    """
    kept = ranking.hit[ranking.score >= score_threshold]
    tp = int(kept.sum())
    counts = {"true_positives": tp, "false_positives": len(kept) - tp, "missed": ranking.positives - tp}
    return {**counts, **scores_at(*counts.values())}


def best_threshold(ranking: Ranking) -> dict[str, float]:
    """Finds the score that gives the highest F1, the highest one of equals.

    Returns:
        ``score``, ``precision``, ``recall`` and ``F1``; all nan where nothing was found.
    """
    # All detections of a score are kept, or none.
    last = np.flatnonzero(np.append(ranking.score[:-1] > ranking.score[1:], len(ranking.score) > 0))
    hits = np.cumsum(ranking.hit)[last]
    if not hits.any():
        return dict.fromkeys(("score", "precision", "recall", "F1"), float("nan"))
    best = int(np.argmax(2 * hits / (last + 1 + ranking.positives)))
    tp, kept = int(hits[best]), int(last[best]) + 1
    return {"score": float(ranking.score[last[best]]), **scores_at(tp, kept - tp, ranking.positives - tp)}


def pool(rankings: list[Ranking]) -> Ranking:
    """Joins the rankings of classes into one, for what is said of all classes."""
    score = np.concatenate([ranking.score for ranking in rankings])
    order = np.argsort(-score, kind="stable")
    return Ranking(
        np.concatenate([ranking.detections for ranking in rankings])[order],
        score[order],
        np.concatenate([ranking.hit for ranking in rankings])[order],
        sum(ranking.positives for ranking in rankings),
    )
