"""Tests whether the difference of two models exceeds the effect of the choice of images in the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn_ext.common.ranges import is_at_least
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.average_precision import IOUS, RECALLS, Matching, average_precisions, match, nan_mean, rank
from maskrcnn_ext.evaluation.overlaps import pair_up
from maskrcnn_ext.evaluation.results import ResultsLike, load_results
from maskrcnn_ext.evaluation.tables import to_json_values
from maskrcnn_ext.evaluation.truth import TruthLike, load_truth

# With fewer images, the resamples are too similar to show anything.
MIN_IMAGES = 10
# Weights of detections kept in memory at a time, which bounds the memory.
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
    """Compares two results of the same images. It is :func:`compare_seeds` for one run of each model.

    The interval does not include the variation between trainings with different seeds.

    Example:
        ::

            comparison = compare("coco:val.json@images", "baseline.json", "ours.json", task="segm")
            print(comparison["metrics"][0])  # AP of both, the difference and its interval
    """
    return compare_seeds(
        truth, [a], [b], task=task, resamples=resamples, seed=seed, max_detections=max_detections, sigmas=sigmas
    )


def compare_seeds(
    truth: TruthLike,
    a: Sequence[ResultsLike],
    b: Sequence[ResultsLike],
    *,
    task: str,
    resamples: int = 1000,
    seed: int = 0,
    max_detections: int | None = None,
    sigmas: Sequence[float] = (),
) -> dict[str, Any]:
    """Compares two models, each trained with the same S seeds, by a paired bootstrap (Efron and Tibshirani, 1993, chapter 13).

    Images and seeds are drawn with replacement, the same ones for both models. AP is computed from the matches of the drawn images and
    averaged over the drawn seeds. The interval is the middle 95 % of the differences; a difference is real if the interval does not
    contain 0.

    Args:
        truth: the ground truth, in any form that :func:`load_truth` accepts.
        a: S results of a model, one a seed.
        b: S results of another model, in the same order of seeds.
        task: bbox, segm, boundary or keypoints.
        resamples: number of draws.
        seed: of the draws.
        max_detections: limit of detections per image and class; None for all (for keypoints, COCO's 20).
        sigmas: of the keypoints.

    Returns:
        ``{"task", "images", "resamples", "metrics": [{"name", "a", "b", "difference", "low", "high", "real", "reason", "seeds"}, ...]}``
        with AP, AP50, AP75 and the AP of every class that has objects, in percent, as means over the seeds; ``difference`` is b - a,
        ``reason`` says why a difference is not real ("" if it is), and ``seeds`` has the pair [a, b] of each seed. Values that cannot
        be measured are None. With fewer than :data:`MIN_IMAGES` images, ``real`` is always False.

    Raises:
        InputError: as :func:`maskrcnn_ext.evaluation.summary.evaluate`, `resamples` is below 1, or the numbers of seeds differ.
    """
    if not is_at_least(resamples, 1):
        raise InputError(f"resamples is {resamples}: expected at least 1")
    if len(a) != len(b) or not a:
        raise InputError(f"{len(a)} and {len(b)} results: expected the same number of each, one a seed")
    loaded_truth = load_truth(truth)
    num_images = len(loaded_truth.images)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, max(num_images, 1), (resamples, num_images))
    # How often each image is in each draw; in 32 bits, which halves the memory.
    draws = np.stack([np.bincount(draw, minlength=num_images) for draw in drawn]).astype(np.int32)
    drawn_seeds = rng.integers(0, len(a), (resamples, len(a)))
    points, samples = [], []
    for results in (*a, *b):
        loaded_results = load_results(results, loaded_truth)
        pairs = pair_up(loaded_truth, loaded_results, task, max_detections=max_detections, sigmas=sigmas)
        matching = match(pairs, IOUS)
        points.append(average_precisions(matching)[0][None])
        samples.append(resample_ap(matching, draws))
    names = [category["name"] for category in loaded_truth.categories]
    metrics = []
    for name, select in _metric_selectors(names, points[0][0]):
        # (S, 2) and (S, resamples): each seed of both models, and the difference of each seed in each draw.
        seeds = np.array([[100 * select(values)[0] for values in pair] for pair in zip(*_halves(points), strict=True)])
        differences = np.stack([100 * (select(y) - select(x)) for x, y in zip(*_halves(samples), strict=True)])
        differences = differences[drawn_seeds.T, np.arange(resamples)].mean(axis=0)
        differences = differences[~np.isnan(differences)]
        low, high = np.percentile(differences, [2.5, 97.5]) if differences.size else (np.nan, np.nan)
        value_a, value_b = seeds.mean(axis=0)
        metrics.append(
            {
                "name": name,
                "a": value_a,
                "b": value_b,
                "difference": value_b - value_a,
                "low": low,
                "high": high,
                "real": bool(low > 0 or high < 0) and num_images >= MIN_IMAGES,
                "reason": _why_not_real(float(low), float(high), num_images),
                "seeds": seeds,
            }
        )
    comparison = {"task": task, "images": num_images, "resamples": resamples, "metrics": metrics}
    json_values: dict[str, Any] = to_json_values(comparison)
    return json_values


def _why_not_real(low: float, high: float, num_images: int) -> str:
    if num_images < MIN_IMAGES:
        return f"fewer than {MIN_IMAGES} images"
    return "" if low > 0 or high < 0 else "0 is in the interval" if low <= high else "no objects"


def ap_interval(
    truth: TruthLike, results: ResultsLike, *, task: str, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Returns the AP of results, and the interval that holds the AP of 95 % of the bootstrap draws of the images, in percent.

    The interval holds AP itself, too: draws repeat images, so that with a few images nearly all draws may have a higher AP.

    Args:
        truth: the ground truth, in any form that :func:`load_truth` accepts.
        results: COCO results.
        task: bbox, segm, boundary or keypoints.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        AP and the two ends of the interval; nan without objects.

    Example::

        ap, low, high = ap_interval("coco:val.json@images", "output/inference/coco_instances_results.json", task="segm")
    """
    loaded_truth = load_truth(truth)
    matching = match(pair_up(loaded_truth, load_results(results, loaded_truth), task), IOUS)
    num_images = len(loaded_truth.images)
    drawn = np.random.default_rng(seed).integers(0, max(num_images, 1), (resamples, num_images))
    draws = np.stack([np.bincount(draw, minlength=num_images) for draw in drawn]).astype(np.int32)
    values = [100 * nan_mean(ap) for ap in resample_ap(matching, draws)]
    values = [value for value in values if not np.isnan(value)]
    low, high = np.percentile(values, [2.5, 97.5]) if values else (np.nan, np.nan)
    ap = 100 * nan_mean(average_precisions(matching)[0])
    return ap, float(np.fmin(low, ap)), float(np.fmax(high, ap))


def _halves(values: list[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the values of the first and of the second model."""
    return values[: len(values) // 2], values[len(values) // 2 :]


def resample_ap(matching: Matching, draws: np.ndarray) -> np.ndarray:
    """Computes the AP of B draws of I images at T IoU thresholds for K classes.

    Args:
        matching: its first range must be all areas.
        draws: (B, I) how often each image is in each draw.

    Returns:
        (B, T, K) float64 from 0 to 1; nan if a draw has no object of the class.
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
                ap[part, threshold, category] = _weighted_ap(weights[:, hit], kept[:, hit], positives[part])
    return ap


def _weighted_ap(weights: np.ndarray, kept: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Returns COCO's AP of B draws, (B).

    Args:
        weights: (B, H) how often each of the H detections that found an object is in a draw, by descending score.
        kept: (B, H) number of all detections down to each of these.
        positives: (B) number of objects.
    """
    found = weights.cumsum(axis=1, dtype=np.int32)
    precision = found / np.maximum(kept, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # How many of COCO's 101 recalls each hit reaches. Unlike COCO's, these recalls are exact hundredths.
    reached = (found * (len(RECALLS) - 1) // np.maximum(positives, 1)[:, None]) + 1
    gained = np.diff(reached, axis=1, prepend=0)
    return np.where(positives > 0, (best * gained).sum(axis=1) / len(RECALLS), np.nan)


def _metric_selectors(names: Sequence[str], ap: np.ndarray) -> list[tuple[str, Any]]:
    """Returns the name of every metric and the function that computes it, (B), from AP (B, T, K)."""

    def average(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        with np.errstate(invalid="ignore"):
            return np.nansum(flat, axis=1) / (~np.isnan(flat)).sum(axis=1)

    selectors: list[tuple[str, Any]] = [
        ("AP", average),
        ("AP50", lambda values: average(values[:, :1])),
        ("AP75", lambda values: average(values[:, 5:6])),
    ]
    for index, name in enumerate(names):
        if not np.isnan(ap[:, index]).any():
            selectors.append((f"AP-{name}", lambda values, index=index: average(values[:, :, index])))
    return selectors
