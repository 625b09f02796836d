"""Which detection has found which object: COCO's matching, the one that all metrics stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn_ext.evaluation.overlaps import Pairs

# COCO's thresholds of IoU, and the recalls at which precision is read.
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
ALL_AREAS = (0.0, np.inf)


@dataclass(frozen=True)
class Matching:
    """The detections' objects, at T thresholds of IoU and for objects of A ranges of area.

    Attributes:
        pairs: what was matched.
        thresholds: (T).
        found: (A, T, N) int32, index of the detection's object; -1 for none.
        ignored: (A, T, N) bool, detections that are neither right nor wrong: of a crowd, or of an object of another area; without an
            object, those of another area themselves.
        object_ignored: (A, M) bool, objects that need not be found.
    """

    pairs: Pairs
    thresholds: np.ndarray
    found: np.ndarray
    ignored: np.ndarray
    object_ignored: np.ndarray

    def at(self, iou: float) -> int:
        """Returns the index of a threshold."""
        return int(np.flatnonzero(np.isclose(self.thresholds, iou))[0])


def match(pairs: Pairs, thresholds: np.ndarray, areas: Sequence[tuple[float, float]] = (ALL_AREAS,)) -> Matching:
    """Matches detections, by falling score, to the objects of their class that they overlap most, as pycocotools' ``evaluateImg``.

    Args:
        pairs: detections, objects and overlaps.
        thresholds: (T) least IoU of a match.
        areas: A ranges of the objects' areas in pixels, both ends included.
    """
    low, high = np.array(areas).T[:, :, None]
    object_ignored = pairs.ignored | (pairs.object_area < low) | (pairs.object_area > high)
    found = np.full((len(low), len(thresholds), len(pairs.image)), -1, dtype=np.int32)
    # A detection may be as good as perfect, and rounded below it.
    least = np.minimum(thresholds, 1 - 1e-10)
    for index, overlap in enumerate(pairs.overlaps):
        detections, objects = pairs.of_image(index)
        categories = pairs.category[detections]
        for category in np.unique(pairs.object_category[objects]) if overlap.size else ():
            rows = np.flatnonzero(categories == category)
            # In reverse: of equal overlaps, pycocotools takes the last.
            columns = np.flatnonzero(pairs.object_category[objects] == category)[::-1]
            own = columns + objects.start
            chosen = _match_class(overlap[rows[:, None], columns], pairs.crowd[own], object_ignored[:, own], least)
            found[:, :, rows + detections.start] = np.where(chosen < 0, -1, own[chosen])
    outside = (pairs.area < low) | (pairs.area > high)
    is_found = found >= 0
    of_ignored = np.zeros_like(is_found)
    for area in range(len(low) if object_ignored.size else 0):
        of_ignored[area] = object_ignored[area][found[area]]
    ignored = np.where(is_found, of_ignored, outside[:, None])
    return Matching(pairs, thresholds, found, ignored, object_ignored)


def _match_class(overlap: np.ndarray, crowd: np.ndarray, ignored: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Matches the detections and objects of an image and class.

    Args:
        overlap: (D, G), by falling score.
        crowd: (G).
        ignored: (A, G).
        least: (T).

    Returns:
        (A, T, D) int, index of the object or -1.
    """
    chosen = np.full((len(ignored), len(least), len(overlap)), -1, dtype=np.int64)
    free = np.ones((len(ignored), len(least), len(crowd)), dtype=bool)
    counted = ~ignored[:, None]
    for row in np.flatnonzero((overlap >= least.min()).any(axis=1)):
        able = free & (overlap[row] >= least[:, None])
        # What counts goes before what does not, however much that overlaps.
        best = np.where(able & counted, overlap[row], -1.0)
        best = np.where((best >= 0).any(axis=2, keepdims=True), best, np.where(able, overlap[row], -1.0))
        column = best.argmax(axis=2)
        chosen[:, :, row] = np.where(able.any(axis=2), column, -1)
        taken = able.any(axis=2, keepdims=True) & (np.arange(len(crowd)) == column[:, :, None]) & ~crowd
        free &= ~taken
    return chosen
