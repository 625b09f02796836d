"""TIDE's kinds of error: one planted at a time, counted and corrected."""

import numpy as np
import pytest

from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, average_precisions
from maskrcnn_ext.evaluation.error_split import ERROR_KINDS, split_errors
from tests.helpers.scenes import found, match_scene, perfect, random_scene, truth_of

# Two objects of a class each, of which the first is found well.
TRUTH = truth_of([(1, 0, 10, 10, 20, 20), (1, 1, 60, 60, 20, 20)], classes=2)
RIGHT = found(1, 0, 10, 10, 20, 20, 0.6)
PLANTED = {
    "classification": [RIGHT, found(1, 0, 60, 60, 20, 20)],
    "localisation": [RIGHT, found(1, 1, 68, 60, 20, 20)],
    "both": [RIGHT, found(1, 0, 68, 60, 20, 20)],
    "duplicate": [RIGHT, found(1, 0, 10, 11, 20, 20, 0.5)],
    "background": [RIGHT, found(1, 1, 120, 90, 20, 20)],
    "missed": [RIGHT],
}


def split(results, truth=TRUTH):
    return split_errors(match_scene(truth, results, areas=[ALL_AREAS]), 0)


@pytest.mark.parametrize("kind", PLANTED)
def test_one_planted_error_is_that_error(kind):
    counts = split(PLANTED[kind]).counts
    # The second object is found in the wrong way, or not at all.
    missed = kind not in ("classification", "localisation")
    assert counts == dict.fromkeys(ERROR_KINDS, 0) | {kind: 1} | {"missed": int(missed)}


def test_correcting_an_error_returns_the_ap_that_it_cost():
    # Class 0: a wrong detection above the right one halves its AP. Corrected, it finds the object of class 1.
    of_class = split(PLANTED["classification"])
    assert of_class.ap == pytest.approx(25)
    assert of_class.delta_ap["classification"] == pytest.approx(75)
    assert of_class.delta_ap["false_positive"] == pytest.approx(25)
    assert of_class.delta_ap["missed"] == 0
    place = split(PLANTED["localisation"])
    assert (place.ap, place.delta_ap["localisation"], place.delta_ap["background"]) == pytest.approx((50, 50, 0))
    for kind in ("both", "background"):
        assert split(PLANTED[kind]).delta_ap[kind] == pytest.approx({"both": 25, "background": 0}[kind])
    missed = split(PLANTED["missed"])
    assert (missed.ap, missed.delta_ap["missed"]) == pytest.approx((50, 50))
    # A duplicate costs where another object of the class is found after it.
    more = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 60, 60, 20, 20)])
    results = [found(1, 0, 10, 10, 20, 20), found(1, 0, 10, 11, 20, 20, 0.8), found(1, 0, 60, 60, 20, 20, 0.7)]
    twice = split(results, more)
    assert twice.ap == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert twice.delta_ap["duplicate"] == pytest.approx(100 - twice.ap)


def test_of_two_detections_with_one_target_the_higher_score_finds_it():
    results = [RIGHT, found(1, 1, 68, 60, 20, 20, 0.9), found(1, 1, 60, 68, 20, 20, 0.8)]
    both = split(results)
    assert both.counts["localisation"] == 2
    assert both.delta_ap["localisation"] == pytest.approx(50)
    taken = split([RIGHT, found(1, 0, 18, 10, 20, 20, 0.9)])  # its object is found by another
    assert taken.counts["localisation"] == 1
    assert taken.delta_ap["localisation"] == pytest.approx(25)


@pytest.mark.parametrize("seed", range(5))
def test_every_wrong_detection_has_one_kind_and_correcting_never_costs(seed):
    truth, results = random_scene(seed)
    matching = match_scene(truth, results, areas=[ALL_AREAS])
    errors = split_errors(matching, 0)
    wrong = (matching.found[0, 0] < 0) & ~matching.ignored[0, 0]
    np.testing.assert_array_equal(errors.kind >= 0, wrong)
    assert sum(errors.counts[kind] for kind in ERROR_KINDS) == wrong.sum()
    assert min(errors.delta_ap.values()) >= -1e-9
    assert errors.ap == pytest.approx(100 * np.nanmean(average_precisions(matching)[0][0]))


def test_a_perfect_model_has_no_errors_and_no_model_misses_all():
    assert sum(split(perfect(TRUTH)).counts.values()) == 0
    nothing = split([])
    assert nothing.counts == dict.fromkeys(ERROR_KINDS, 0) | {"missed": 2}
    assert (nothing.ap, nothing.delta_ap["missed"]) == (0, 100)
    assert np.isnan(split([RIGHT], truth_of([], classes=2)).ap)
    assert split([RIGHT], truth_of([], classes=2)).counts["background"] == 1
