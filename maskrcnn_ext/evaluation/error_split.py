"""Splits the wrong detections by kind of error, and measures how much AP each kind costs: TIDE (ECCV 2020, arXiv:2008.08115)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.evaluation.average_precision import Matching, nan_mean, precision_at_recalls, rank

ERROR_KINDS = ("classification", "localisation", "both", "duplicate", "background")


@dataclass(frozen=True)
class ErrorSplit:
    """The errors of N detections and M objects at one IoU threshold.

    Attributes:
        kind: (N) int8, index into :data:`ERROR_KINDS`; -1 for detections that are right or ignored.
        missed: (M) bool, objects that no detection means, not even one of the wrong class or place.
        counts: number of errors of each kind, and of ``missed``.
        ap: AP at the threshold, in percent.
        delta_ap: increase of AP, in percent, if all errors of one kind were corrected. Besides :data:`ERROR_KINDS` and ``missed``, it has
            ``false_positive`` (all wrong detections) and ``false_negative`` (all objects that were not found).
    """

    kind: np.ndarray
    missed: np.ndarray
    counts: dict[str, int]
    ap: float
    delta_ap: dict[str, float]


def split_errors(matching: Matching, threshold: int, background: float = 0.1) -> ErrorSplit:
    """Splits the errors into the six kinds of section 2.2 of the paper, in the order in which the authors' program tests them.

    * Localisation: the detection overlaps an object of its class by at least ``background`` and less than the threshold.
    * Classification: it overlaps an object of another class by at least the threshold.
    * Duplicate: it overlaps an object of its class by at least the threshold, but another detection found that object.
    * Background: it overlaps no object by more than ``background``.
    * Both: all other wrong detections.

    Args:
        matching: its first range must be all areas.
        threshold: index of the IoU threshold from which a detection is right, t_f in the paper.
        background: highest IoU of a detection of the background, t_b in the paper.
    """
    pairs = matching.pairs
    foreground = matching.thresholds[threshold]
    found, ignored = matching.found[0, threshold], matching.ignored[0, threshold]
    counted = ~matching.object_ignored[0]
    kind = np.full(len(found), -1, dtype=np.int8)
    # The object that the detection would have found if its class or place were right.
    target = np.full(len(found), -1, dtype=np.int64)
    is_found = np.zeros(len(counted), dtype=bool)
    is_found[found[(found >= 0) & ~ignored]] = True
    for index, overlap in enumerate(pairs.overlaps):
        detections, objects = pairs.of_image(index)
        wrong = np.flatnonzero((found[detections] < 0) & ~ignored[detections])
        candidates = objects.start + np.flatnonzero(counted[objects])
        if not len(candidates):
            kind[wrong + detections.start] = ERROR_KINDS.index("background")
            continue
        overlap = overlap[wrong[:, None], candidates - objects.start]
        same_class = pairs.category[detections][wrong, None] == pairs.object_category[candidates]
        same_iou, other_iou = np.where(same_class, overlap, -1.0), np.where(same_class, -1.0, overlap)
        best_same, best_other = same_iou.max(axis=1), other_iou.max(axis=1)
        is_localisation = (best_same >= background) & (best_same < foreground)
        kinds = np.select(
            [
                is_localisation,
                best_other >= foreground,
                best_same >= foreground,
                overlap.max(axis=1) <= background,
            ],
            [ERROR_KINDS.index(name) for name in ("localisation", "classification", "duplicate", "background")],
            ERROR_KINDS.index("both"),
        )
        kind[wrong + detections.start] = kinds
        best = np.where(is_localisation, same_iou.argmax(axis=1), other_iou.argmax(axis=1))
        has_target = is_localisation | (kinds == ERROR_KINDS.index("classification"))
        target[wrong + detections.start] = np.where(has_target, candidates[best], -1)
    is_target = np.zeros(len(counted), dtype=bool)
    is_target[target[target >= 0]] = True
    missed = counted & ~is_found & ~is_target
    counts = {name: int((kind == index).sum()) for index, name in enumerate(ERROR_KINDS)}
    ap, delta_ap = _measure_deltas(matching, threshold, kind, target, is_found, missed)
    return ErrorSplit(kind, missed, counts | {"missed": int(missed.sum())}, ap, delta_ap)


def _measure_deltas(
    matching: Matching,
    threshold: int,
    kind: np.ndarray,
    target: np.ndarray,
    is_found: np.ndarray,
    missed: np.ndarray,
) -> tuple[float, dict[str, float]]:
    """Returns the AP, and by how much it increases if the errors of each kind are corrected; both in percent."""
    pairs = matching.pairs
    rankings = [rank(matching, category, threshold) for category in range(pairs.num_classes)]
    order = np.concatenate([ranking.detections for ranking in rankings])
    category, score, kind, target = pairs.category[order], pairs.score[order], kind[order], target[order]
    hit = matching.found[0, threshold, order] >= 0
    positives = np.array([ranking.positives for ranking in rankings])
    counted = ~matching.object_ignored[0]

    def count_by_class(objects: np.ndarray) -> np.ndarray:
        return np.bincount(pairs.object_category[objects], minlength=len(positives))

    def measure_ap(kept: np.ndarray, category: np.ndarray, hit: np.ndarray, to_find: np.ndarray) -> float:
        values = np.full(len(positives), np.nan)
        for index in np.flatnonzero(positives):
            rows = np.flatnonzero(kept & (category == index))
            hits = hit[rows[np.argsort(-score[rows], kind="stable")]]
            # With no object of the class left to find, AP is 1 without detections of the class and 0 with any.
            values[index] = (
                precision_at_recalls(hits, to_find[index]).mean() if to_find[index] else float(not len(hits))
            )
        return nan_mean(values) * 100

    everything = np.ones(len(order), dtype=bool)
    before = measure_ap(everything, category, hit, positives)
    after = {}
    for index, name in enumerate(ERROR_KINDS):
        wrong = kind == index
        # Once corrected, one of the detections with the same target finds it: that of the highest score, unless it is found already.
        corrected = np.zeros(len(order), dtype=bool)
        candidates = np.flatnonzero(wrong & (target >= 0))
        candidates = candidates[~is_found[target[candidates]]]
        candidates = candidates[np.argsort(-score[candidates], kind="stable")]
        corrected[candidates[np.unique(target[candidates], return_index=True)[1]]] = True
        moved = category.copy()
        moved[corrected] = pairs.object_category[target[corrected]]
        after[name] = measure_ap(~wrong | corrected, moved, hit | corrected, positives)
    after["missed"] = measure_ap(everything, category, hit, positives - count_by_class(missed))
    after["false_positive"] = measure_ap(hit, category, hit, positives)
    after["false_negative"] = measure_ap(everything, category, hit, positives - count_by_class(counted & ~is_found))
    return before, {name: value - before for name, value in after.items()}
