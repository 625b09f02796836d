"""LVIS's rules by hand: which images count for a class, and which detections are not wrong."""

import pytest

from maskrcnn_ext.evaluation.lvis import has_lvis_rules, lvis_metrics
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.tables import overview
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.scenes import found, random_scene, truth_of

pytest.importorskip("hotcoco")


def scene(negative=(), not_exhaustive=()):
    """A frequent and a rare class; each has an object in image 2, and a detection with a higher score outside of it."""
    truth = truth_of([(1, 0, 10, 10, 20, 20), (2, 0, 10, 10, 20, 20), (2, 1, 50, 50, 20, 20)], images=2, classes=2)
    for category, frequency in zip(truth["categories"], "fr", strict=True):
        category["frequency"] = frequency
    truth["images"][0]["neg_category_ids"] = list(negative)
    truth["images"][1]["not_exhaustive_category_ids"] = list(not_exhaustive)
    results = [
        found(1, 0, 10, 10, 20, 20, 0.9),
        found(2, 0, 80, 10, 20, 20, 0.95),  # wrong unless image 2 is not exhaustive for class 0
        found(2, 0, 10, 10, 20, 20, 0.8),
        found(1, 1, 50, 50, 20, 20, 0.9),  # wrong if class 1 is verified to be absent in image 1
        found(2, 1, 50, 50, 20, 20, 0.8),
    ]
    return truth, results


def measured(truth, results, task):
    known = load_truth(truth)
    return lvis_metrics(known, load_results(results, known), task)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_unverified_classes_and_incomplete_images_cost_nothing(task):
    metrics = measured(*scene(negative=[], not_exhaustive=[10]), task)
    assert (metrics["AP"], metrics["APf"], metrics["APr"]) == (
        pytest.approx(100),
        pytest.approx(100),
        pytest.approx(100),
    )
    assert metrics["APc"] is None


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_verified_ones_do(task):
    metrics = measured(*scene(negative=[20]), task)
    assert metrics["APr"] == pytest.approx(50), "one wrong before the right one"
    # Wrong, right, right: precision 2/3 at both recalls.
    assert metrics["APf"] == pytest.approx(100 * 2 / 3)
    assert metrics["AP"] == pytest.approx((metrics["APr"] + metrics["APf"]) / 2)


def test_the_summary_has_them_if_the_images_have_the_lists():
    truth, results = scene(negative=[20])
    assert has_lvis_rules(load_truth(truth))
    summary = evaluate(truth, results)
    assert summary["tasks"]["segm"]["lvis"] == measured(truth, results, "segm")
    assert "By the rules of LVIS" in overview(summary)
    assert summary["tasks"]["bbox"]["AP"] < summary["tasks"]["bbox"]["lvis"]["AP"] + 1e-6
    ordinary = evaluate(*random_scene(0))
    assert "lvis" not in ordinary["tasks"]["bbox"]
    assert "LVIS" not in overview(ordinary)
