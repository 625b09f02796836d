"""What is wrong with the detections that are wrong, and how much AP each kind of error costs: TIDE (ECCV 2020, arXiv:2008.08115)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.evaluation.average_precision import mean, precision_at_recalls, rank
from maskrcnn_ext.evaluation.matching import Matching

KINDS = ("classification", "localisation", "both", "duplicate", "background")


@dataclass(frozen=True)
class ErrorSplit:
    """The errors at one threshold of IoU.

    Attributes:
        kind: (N) int8, index into :data:`KINDS` of each detection of the matching; -1 for one that is right or ignored.
        missed: (M) bool, objects that no detection has found, not even one of the wrong class or place.
        counts: number of errors of each kind, and of ``missed``.
        ap: AP at the threshold, in percent.
        delta_ap: by how much it rises when all errors of one kind are mended, in percent: those of :data:`KINDS`, ``missed``, and also
            ``false_positive`` and ``false_negative`` for all wrong detections and all objects not found.
    """

    kind: np.ndarray
    missed: np.ndarray
    counts: dict[str, int]
    ap: float
    delta_ap: dict[str, float]


def split_errors(matching: Matching, threshold: int, background: float = 0.1) -> ErrorSplit:
    """Splits the errors into the six kinds of the paper's section 2.2, in the order in which its program asks for them.

    Localisation: an object of the own class is overlapped by ``background`` to the threshold. Classification: one of another class is
    overlapped by the threshold. Duplicate: one of the own class, which another detection has found, is. Background: none is overlapped
    by more than ``background``. Both: all else.

    Args:
        matching: of all areas.
        threshold: index of the IoU from which a detection is right, the paper's t_f.
        background: the IoU up to which a detection is of the background, its t_b.
    """
    pairs = matching.pairs
    foreground = matching.thresholds[threshold]
    found, ignored = matching.found[0, threshold], matching.ignored[0, threshold]
    counted = ~matching.object_ignored[0]
    kind = np.full(len(found), -1, dtype=np.int8)
    # The object that the detection would have found, had it been of the right class or place.
    meant = np.full(len(found), -1, dtype=np.int64)
    is_found = np.zeros(len(counted), dtype=bool)
    is_found[found[(found >= 0) & ~ignored]] = True
    for index, overlap in enumerate(pairs.overlaps):
        detections, objects = pairs.of_image(index)
        wrong = np.flatnonzero((found[detections] < 0) & ~ignored[detections])
        own_objects = np.flatnonzero(counted[objects]) + objects.start
        if not len(own_objects):
            kind[wrong + detections.start] = KINDS.index("background")
            continue
        overlap = overlap[wrong[:, None], own_objects - objects.start]
        same = pairs.category[detections][wrong, None] == pairs.object_category[own_objects]
        own, others = np.where(same, overlap, -1.0), np.where(same, -1.0, overlap)
        place, name = own.max(axis=1), others.max(axis=1)
        is_place = (place >= background) & (place < foreground)
        kinds = np.select(
            [is_place, name >= foreground, place >= foreground, overlap.max(axis=1) <= background],
            [KINDS.index(k) for k in ("localisation", "classification", "duplicate", "background")],
            KINDS.index("both"),
        )
        kind[wrong + detections.start] = kinds
        aim = np.where(is_place, own.argmax(axis=1), others.argmax(axis=1))
        of_object = is_place | (kinds == KINDS.index("classification"))
        meant[wrong + detections.start] = np.where(of_object, own_objects[aim], -1)
    near = np.zeros(len(counted), dtype=bool)
    near[meant[meant >= 0]] = True
    missed = counted & ~is_found & ~near
    counts = {name: int((kind == index).sum()) for index, name in enumerate(KINDS)} | {"missed": int(missed.sum())}
    ap, deltas = _deltas(matching, threshold, kind, meant, is_found, missed)
    return ErrorSplit(kind, missed, counts, ap, deltas)


def _deltas(
    matching: Matching,
    threshold: int,
    kind: np.ndarray,
    meant: np.ndarray,
    is_found: np.ndarray,
    missed: np.ndarray,
) -> tuple[float, dict[str, float]]:
    pairs = matching.pairs
    rankings = [rank(matching, category, threshold) for category in range(pairs.num_classes)]
    order = np.concatenate([ranking.detections for ranking in rankings])
    category, score, kind, meant = pairs.category[order], pairs.score[order], kind[order], meant[order]
    hit = matching.found[0, threshold, order] >= 0
    positives = np.array([ranking.positives for ranking in rankings])
    counted = ~matching.object_ignored[0]

    def of_class(objects: np.ndarray) -> np.ndarray:
        return np.bincount(pairs.object_category[objects], minlength=len(positives))

    def ap(kept: np.ndarray, category: np.ndarray, hit: np.ndarray, left: np.ndarray) -> float:
        values = np.full(len(positives), np.nan)
        for own in np.flatnonzero(positives):
            rows = np.flatnonzero(kept & (category == own))
            hits = hit[rows[np.argsort(-score[rows], kind="stable")]]
            # All that there was to find may have been what is forgiven.
            values[own] = precision_at_recalls(hits, left[own]).mean() if left[own] else float(not len(hits))
        return mean(values) * 100

    everything = np.ones(len(order), dtype=bool)
    before = ap(everything, category, hit, positives)
    after = {}
    for index, name in enumerate(KINDS):
        wrong = kind == index
        # Mended, one of the detections that mean an object finds it: the surest, unless another has found it already.
        mended = np.zeros(len(order), dtype=bool)
        able = np.flatnonzero(wrong & (meant >= 0))
        able = able[~is_found[meant[able]]]
        able = able[np.argsort(-score[able], kind="stable")]
        mended[able[np.unique(meant[able], return_index=True)[1]]] = True
        moved = category.copy()
        moved[mended] = pairs.object_category[meant[mended]]
        after[name] = ap(~wrong | mended, moved, hit | mended, positives)
    after["missed"] = ap(everything, category, hit, positives - of_class(missed))
    after["false_positive"] = ap(hit, category, hit, positives)
    after["false_negative"] = ap(everything, category, hit, positives - of_class(counted & ~is_found))
    return before, {name: value - before for name, value in after.items()}
