"""Whether scores are probabilities: of the detections with a score of 0.8, 80 % should be right."""

from __future__ import annotations

import numpy as np

from maskrcnn_ext.evaluation.average_precision import Ranking


def reliability(ranking: Ranking, num_bins: int = 10) -> tuple[float, list[dict[str, float]]]:
    """Compares the scores of detections with how many of them are right.

    The detection expected calibration error (D-ECE, arXiv:2004.13546) with the score as its one dimension: the mean distance of score and
    precision in bins of equal width, weighted by their detections.

    Args:
        ranking: detections, right and wrong; scores from 0 to 1.
        num_bins: of equal width.

    Returns:
        The error, from 0 to 1, nan without a detection; and for every bin its ``low`` and ``high`` score, the ``count`` of detections,
        and their mean ``score`` and ``precision``, nan where there is none.
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
