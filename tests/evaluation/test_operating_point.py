"""Rates at a threshold, the best threshold, the confusion matrix and calibration, computed by hand."""

import numpy as np
import pytest

from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, Ranking, rank
from maskrcnn_ext.evaluation.operating_point import (
    best_threshold,
    calibration,
    confusion_matrix,
    merge_rankings,
    rates_at_threshold,
)
from tests.helpers.scenes import found, match_scene, random_scene, truth_of


def ranking(scores, hits, positives):
    return Ranking(np.arange(len(scores)), np.array(scores, dtype=float), np.array(hits, dtype=bool), positives)


def test_precision_recall_and_f1_at_a_threshold():
    own = ranking([0.9, 0.8, 0.5, 0.4], [1, 0, 1, 1], positives=5)
    assert rates_at_threshold(own, 0.5) == pytest.approx(
        {"true_positives": 2, "false_positives": 1, "missed": 3, "precision": 2 / 3, "recall": 2 / 5, "F1": 1 / 2}
    )
    nothing = rates_at_threshold(own, 0.95)
    assert np.isnan(nothing["precision"])
    assert (nothing["recall"], nothing["F1"]) == (0, 0)
    assert np.isnan(rates_at_threshold(ranking([], [], 0), 0.5)["F1"])


def test_the_best_threshold_is_that_of_the_highest_f1():
    own = ranking([0.9, 0.8, 0.5, 0.5, 0.3], [1, 0, 1, 1, 0], positives=3)
    assert best_threshold(own) == pytest.approx({"score": 0.5, "precision": 3 / 4, "recall": 1, "F1": 6 / 7})
    # Of two with the same score, none can be kept without the other.
    tied = ranking([0.9, 0.9], [1, 0], positives=1)
    assert best_threshold(tied)["precision"] == 0.5
    for nothing in (ranking([], [], 3), ranking([0.5], [0], 3)):
        assert all(np.isnan(value) for value in best_threshold(nothing).values())


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_beats_all_others(seed):
    truth, results = random_scene(seed)
    matching = match_scene(truth, results, areas=[ALL_AREAS])
    own = merge_rankings([rank(matching, category, 0) for category in range(3)])
    best = best_threshold(own)
    f1 = {score: rates_at_threshold(own, score)["F1"] for score in own.score}
    assert best["F1"] == pytest.approx(max(f1.values()))
    assert f1[best["score"]] == pytest.approx(best["F1"])


def test_confusion_against_hand_computed_values():
    truth = truth_of(
        [(1, 0, 10, 10, 20, 20), (1, 1, 60, 60, 20, 20), (1, 1, 120, 90, 20, 20), (1, 0, 80, 0, 40, 40, 1)], classes=2
    )
    results = [
        found(1, 0, 10, 10, 20, 20, 0.9),
        found(1, 1, 10, 10, 20, 20, 0.95),  # but the detection of the right class has the object
        found(1, 0, 60, 60, 20, 20, 0.8),
        found(1, 1, 120, 90, 20, 20, 0.3),  # below the threshold
        found(1, 0, 85, 5, 10, 10, 0.9),  # in the crowd
    ]
    matching = match_scene(truth, results, areas=[ALL_AREAS])
    assert confusion_matrix(matching, 0, 0.5).tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("seed", range(6))
def test_rows_add_up_to_objects_and_columns_to_detections(seed):
    truth, results = random_scene(seed)
    matching = match_scene(truth, results, areas=[ALL_AREAS])
    counts = confusion_matrix(matching, 0, 0.4)
    own = [a["category_id"] // 10 - 1 for a in truth["annotations"] if not a["iscrowd"]]
    assert counts[:-1].sum(axis=1).tolist() == np.bincount(own, minlength=3).tolist()
    kept = (matching.pairs.score >= 0.4) & ~matching.ignored[0, 0]
    expected = np.bincount(matching.pairs.category[kept], minlength=3)
    assert counts[:, :-1].sum(axis=0).tolist() == expected.tolist()
    assert counts.diagonal()[:-1].tolist() == [
        rates_at_threshold(rank(matching, category, 0), 0.4)["true_positives"] for category in range(3)
    ]


def test_calibration_against_hand_computed_values():
    # In [0.9, 1]: scores 0.95 and 1, half of them right. In [0.2, 0.3): 0.2, wrong.
    error, bins = calibration(ranking([1.0, 0.95, 0.2], [1, 0, 0], 1))
    assert error == pytest.approx((2 * abs(0.975 - 0.5) + 0.2) / 3)
    assert [row["count"] for row in bins] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 2]
    assert bins[9] == pytest.approx({"low": 0.9, "high": 1, "count": 2, "score": 0.975, "precision": 0.5})
    assert np.isnan(bins[0]["precision"])


def test_scores_that_are_probabilities_have_no_error():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.random(40_000))[::-1]
    assert calibration(ranking(scores, rng.random(40_000) < scores, 1))[0] < 0.02
    assert calibration(ranking(scores, rng.random(40_000) < scores / 2, 1))[0] == pytest.approx(0.25, abs=0.02)
    assert np.isnan(calibration(ranking([], [], 1))[0])
