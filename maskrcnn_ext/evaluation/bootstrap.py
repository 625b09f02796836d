"""Whether the difference of two models is real, or that of the images which happen to be in the data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.average_precision import average_precisions, rank
from maskrcnn_ext.evaluation.matching import IOUS, RECALLS, Matching, match
from maskrcnn_ext.evaluation.overlaps import pair_up
from maskrcnn_ext.evaluation.results import ResultsLike, load_results
from maskrcnn_ext.evaluation.tables import plain
from maskrcnn_ext.evaluation.truth import TruthLike, load_truth

# With fewer, the resamples are too much alike to tell anything.
MIN_IMAGES = 10
# Weights of detections that are held at once, which bounds the memory.
_CHUNK = 2**22


def compare(
    truth: TruthLike,
    a: ResultsLike,
    b: ResultsLike,
    *,
    task: str,
    resamples: int = 1000,
    seed: int = 0,
    max_detections: int | None = None,
    sigmas: Sequence[float] = (),
) -> dict[str, Any]:
    """Compares two results of the same images by a paired bootstrap (Efron and Tibshirani, 1993, chapter 13).

    Images are drawn with replacement, the same for both, and AP is computed anew from their matches. Of the differences, the middle 95 %
    are the interval; a difference is real if 0 is not in it. It says nothing of another training with another seed.

    Args:
        truth: see :func:`load_truth`.
        a: results.
        b: other results.
        task: bbox, segm, boundary or keypoints.
        resamples: number of draws.
        seed: of the draws.
        max_detections: how many of an image and class count; None for all, and for COCO's 20 of keypoints.
        sigmas: of the keypoints.

    Returns:
        ``{"task", "images", "resamples", "metrics": [{"name", "a", "b", "difference", "low", "high", "real"}, ...]}`` of AP, AP50, AP75
        and the AP of every class with objects, in percent; ``difference`` is b - a, None what there is nothing to measure by. Below
        :data:`MIN_IMAGES` images, ``real`` is False throughout.

    Raises:
        InputError: as :func:`maskrcnn_ext.evaluation.summary.evaluate`, or fewer than one resample.
    """
    if resamples < 1:
        raise InputError(f"resamples is {resamples}: expected at least 1")
    known = load_truth(truth)
    num_images = len(known.images)
    drawn = np.random.default_rng(seed).integers(0, max(num_images, 1), (resamples, num_images))
    # How often each image is in each draw; of 32 bits, for half the memory.
    draws = np.stack([np.bincount(draw, minlength=num_images) for draw in drawn]).astype(np.int32)
    points, samples = [], []
    for results in (a, b):
        pairs = pair_up(known, load_results(results, known), task, max_detections=max_detections, sigmas=sigmas)
        matching = match(pairs, IOUS)
        points.append(average_precisions(matching)[0][None])
        samples.append(resampled(matching, draws))
    names = [category["name"] for category in known.categories]
    metrics = []
    for name, select in _selections(names, points[0][0]):
        point = [100 * select(values) for values in points]
        difference = 100 * (select(samples[1]) - select(samples[0]))
        difference = difference[~np.isnan(difference)]
        low, high = np.percentile(difference, [2.5, 97.5]) if difference.size else (np.nan, np.nan)
        metrics.append(
            {
                "name": name,
                "a": point[0][0],
                "b": point[1][0],
                "difference": point[1][0] - point[0][0],
                "low": low,
                "high": high,
                "real": bool(low > 0 or high < 0) and num_images >= MIN_IMAGES,
            }
        )
    told: dict[str, Any] = plain({"task": task, "images": num_images, "resamples": resamples, "metrics": metrics})
    return told


def resampled(matching: Matching, draws: np.ndarray) -> np.ndarray:
    """Returns the AP of each draw, threshold and class, (B, T, K) from 0 to 1; nan where a draw has no object of the class.

    Args:
        matching: of all areas.
        draws: (B, I) how often each image is in each draw.
    """
    pairs = matching.pairs
    counted = ~matching.object_ignored[0]
    ap = np.full((len(draws), len(matching.thresholds), pairs.num_classes), np.nan)
    for category in range(pairs.num_classes):
        objects = pairs.object_image[counted & (pairs.object_category == category)]
        positives = draws @ np.bincount(objects, minlength=pairs.num_images)
        if not positives.any():
            continue
        step = max(1, _CHUNK // max(1, len(pairs.by_class[category])))
        rankings = [rank(matching, category, threshold) for threshold in range(len(matching.thresholds))]
        for start in range(0, len(draws), step):
            part = slice(start, start + step)
            weights = kept = np.zeros((0, 0))
            for threshold, ranking in enumerate(rankings):
                # Without crowds, the same detections count at all thresholds.
                if not threshold or not np.array_equal(ranking.detections, rankings[threshold - 1].detections):
                    weights = draws[part][:, pairs.image[ranking.detections]]
                    kept = weights.cumsum(axis=1, dtype=np.int32)
                hit = ranking.hit
                ap[part, threshold, category] = _average_precision(weights[:, hit], kept[:, hit], positives[part])
    return ap


def _average_precision(weights: np.ndarray, kept: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Returns COCO's AP of B draws, (B).

    Args:
        weights: (B, h) how often each of the detections that have found an object is in a draw, by falling score.
        kept: (B, h) how many detections are, down to each of these.
        positives: (B) how many objects are.
    """
    found = weights.cumsum(axis=1, dtype=np.int32)
    precision = found / np.maximum(kept, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # How many of COCO's 101 recalls each hit reaches, but for its rounding of them: whole hundredths of the objects.
    reached = (found * (len(RECALLS) - 1) // np.maximum(positives, 1)[:, None]) + 1
    gained = np.diff(reached, axis=1, prepend=0)
    return np.where(positives > 0, (best * gained).sum(axis=1) / len(RECALLS), np.nan)


def _selections(names: Sequence[str], ap: np.ndarray) -> list[tuple[str, Any]]:
    """Returns the name of every metric and what computes it, (B), of AP (B, T, K)."""

    def average(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        with np.errstate(invalid="ignore"):
            return np.nansum(flat, axis=1) / (~np.isnan(flat)).sum(axis=1)

    chosen: list[tuple[str, Any]] = [
        ("AP", average),
        ("AP50", lambda values: average(values[:, :1])),
        ("AP75", lambda values: average(values[:, 5:6])),
    ]
    for index, name in enumerate(names):
        if not np.isnan(ap[:, index]).any():
            chosen.append((f"AP-{name}", lambda values, index=index: average(values[:, :, index])))
    return chosen
