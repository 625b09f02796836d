"""DSB2018, PQ and AJI against values by hand and a slow reference."""

import numpy as np
import pycocotools.mask as mask_util
import pytest

from maskrcnn_ext.evaluation.nuclei import METRICS, label_image, label_metrics, nuclei_metrics
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.tables import overview
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.scenes import HEIGHT, WIDTH, found, perfect, random_scene, rectangle, truth_of


def measure(truth, results, **options):
    known = load_truth(truth)
    return nuclei_metrics(known, load_results(results, known), **options)


def test_two_objects_against_hand_computed_values():
    true, predicted = np.zeros((2, 10), int), np.zeros((2, 10), int)
    true[0, :4], true[1, :4] = 1, 2
    predicted[0, 1:4], predicted[1, 3:9] = 5, 7  # IoU 3/4 and 1/9
    metrics = label_metrics(true, predicted)
    # Of IoU 3/4, the thresholds 0.5, 0.55 ... 0.7 are exceeded, not 0.75 itself.
    assert metrics["DSB2018"] == pytest.approx(5 * (1 / 3) / 10)
    assert (metrics["SQ"], metrics["RQ"], metrics["PQ"]) == pytest.approx((3 / 4, 1 / 2, 3 / 8))
    assert metrics["AJI"] == pytest.approx((3 + 1) / (4 + 9))


def test_unmatched_objects_and_detections_lower_aji():
    true, predicted = np.zeros((1, 10), int), np.zeros((1, 10), int)
    true[0, :3], predicted[0, :3], predicted[0, 6:8] = 1, 1, 2
    assert label_metrics(true, predicted)["AJI"] == pytest.approx(3 / 5)
    assert label_metrics(predicted, true)["AJI"] == pytest.approx(3 / 5)


def test_empty_images():
    none, one = np.zeros((3, 3), int), np.eye(3, dtype=int)
    empty = label_metrics(none, none)
    assert np.isnan(empty.pop("SQ"))
    assert set(empty.values()) == {1.0}
    for pair in ((none, one), (one, none)):
        metrics = label_metrics(*pair)
        assert np.isnan(metrics.pop("SQ"))
        assert set(metrics.values()) == {0.0}


def slow(true, predicted):
    """Computes the metrics with one pixel mask per object, in loops."""
    own = [true == n for n in np.unique(true) if n]
    other = [predicted == n for n in np.unique(predicted) if n]
    iou = np.array([[(a & b).sum() / (a | b).sum() for b in other] for a in own]).reshape(len(own), len(other))
    scores = []
    for threshold in np.linspace(0.5, 0.95, 10):
        tp = sum((row > threshold).any() for row in iou)
        scores.append(tp / (len(own) + len(other) - tp))
    tp = sum((row > 0.5).any() for row in iou)
    pq = iou[iou > 0.5].sum() / (tp + (len(other) - tp) / 2 + (len(own) - tp) / 2)
    shared = joined = 0
    used = set()
    for a, row in zip(own, iou, strict=True):
        if len(row) and row.max() > 0:
            b = other[int(row.argmax())]
            shared, joined = shared + (a & b).sum(), joined + (a | b).sum()
            used.add(int(row.argmax()))
        else:
            joined += a.sum()
    joined += sum(b.sum() for index, b in enumerate(other) if index not in used)
    return {"DSB2018": np.mean(scores), "PQ": pq, "AJI": shared / joined}


@pytest.mark.parametrize("seed", range(8))
def test_random_label_images_are_those_of_a_slow_reference(seed):
    rng = np.random.default_rng(seed)
    true = np.kron(rng.integers(0, 6, (5, 6)), np.ones((4, 4), int))
    predicted = np.where(rng.random(true.shape) < 0.1, rng.integers(0, 6, true.shape), np.roll(true, 1, axis=1))
    metrics = label_metrics(true, predicted)
    assert {name: metrics[name] for name in ("DSB2018", "PQ", "AJI")} == pytest.approx(slow(true, predicted))


def test_masks_give_way_to_those_of_a_higher_score():
    labels = label_image([rectangle(10, 10, 20, 20), rectangle(20, 10, 20, 20)], (HEIGHT, WIDTH))
    assert np.bincount(labels.ravel()).tolist()[1:] == [400, 200]
    truth = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 30, 10, 10, 20)])
    over = found(1, 0, 20, 10, 20, 20, 0.8)
    assert measure(truth, [over, found(1, 0, 10, 10, 20, 20, 0.9)])["PQ"] == 1
    assert measure(truth, [over, found(1, 0, 10, 10, 20, 20, 0.7)])["PQ"] < 0.6
    assert measure(truth, [over, found(1, 0, 10, 10, 20, 20, 0.9)], score_threshold=0.85)["RQ"] == pytest.approx(2 / 3)


def test_objects_inside_a_crowd_do_not_count():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 60, 60, 40, 40, 1), (2, 0, 0, 0, 40, 40, 1)], images=3)
    metrics = measure(truth, [*perfect(truth), found(1, 0, 70, 70, 10, 10), found(2, 0, 5, 5, 9, 9)])
    assert metrics == dict.fromkeys(metrics, 1.0)


def test_images_are_averaged():
    truth, results = random_scene(3)
    known = load_truth({**truth, "annotations": [own for own in truth["annotations"] if not own["iscrowd"]]})
    rows = []
    for image in known.images:
        own = [a["segmentation"] for a in known.annotations if a["image_id"] == image["id"]]
        chosen = [r for r in results if r["image_id"] == image["id"] and r["score"] >= 0.5]
        chosen = [r["segmentation"] for r in sorted(chosen, key=lambda result: -result["score"])]
        labels = [label_image(rles, (HEIGHT, WIDTH)) for rles in (sorted(own, key=mask_util.area), chosen)]
        rows.append(label_metrics(*labels))
    metrics = nuclei_metrics(known, load_results(results, known))
    for name in METRICS:
        assert metrics[name] == pytest.approx(np.nanmean([row[name] for row in rows]))


def test_the_summary_has_them_for_data_like_nuclei_only():
    few = truth_of([(1, 0, 2, 2, 9, 9)])
    many = truth_of([(1, 0, 20 * i, 2, 9, 9) for i in range(5)])
    two_classes = truth_of([(1, i % 2, 20 * i, 2, 9, 9) for i in range(6)], classes=2)
    for truth, expected in ((few, False), (many, True), (two_classes, False)):
        summary = evaluate(truth, [found(1, 0, 2, 2, 9, 9)])
        assert ("nuclei" in summary["tasks"]["segm"]) == expected
        assert ("DSB2018" in overview(summary)) == expected
