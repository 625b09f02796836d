"""Which class objects were taken for."""

from __future__ import annotations

import numpy as np

from maskrcnn_ext.evaluation.matching import Matching


def confusion_matrix(matching: Matching, threshold: int, score_threshold: float) -> np.ndarray:
    """Counts objects by their class and the class that they were found as.

    Objects found as their own class are those that the matching has found. Of the rest, detections are given, by falling score, to the
    free object that they overlap most, of whatever class. Crowds are no objects, and detections in a crowd of their class are none.

    Args:
        matching: of all areas.
        threshold: index of the least IoU.
        score_threshold: least score of a detection.

    Returns:
        (K + 1, K + 1) int64: rows are the objects' classes, columns the detections', the last of each the background. Each row but the
        last adds up to the number of the class's objects.
    """
    pairs = matching.pairs
    background = pairs.num_classes
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    found, least = matching.found[0, threshold], matching.thresholds[threshold]
    kept = (pairs.score >= score_threshold) & ~matching.ignored[0, threshold]
    free = ~matching.object_ignored[0]
    free[found[kept & (found >= 0)]] = False
    np.add.at(counts, (pairs.category[kept & (found >= 0)],) * 2, 1)
    for index, overlap in enumerate(pairs.overlaps):
        detections, objects = pairs.of_image(index)
        for detection in np.flatnonzero(kept[detections] & (found[detections] < 0)):
            able = np.where(free[objects], overlap[detection], -1.0)
            taken = background
            if able.size and able.max() >= least:
                best = objects.start + int(able.argmax())
                taken, free[best] = pairs.object_category[best], False
            counts[taken, pairs.category[detections.start + detection]] += 1
    np.add.at(counts[:, background], pairs.object_category[free], 1)
    return counts
