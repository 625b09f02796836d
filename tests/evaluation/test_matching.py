"""The matching and AP are pycocotools' own, number for number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, IOUS, average_precisions, match
from maskrcnn_ext.evaluation.overlaps import COCO_SIGMAS, pair_up
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.scenes import found, official, perfect, random_scene, truth_of

AREAS = [ALL_AREAS, (0, 32**2), (32**2, 96**2), (96**2, np.inf)]


def matched(truth, results, task="bbox", areas=AREAS, **options):
    known = load_truth(truth)
    return match(pair_up(known, load_results(results, known), task, **options), IOUS, areas)


def assert_is_official(truth, results, task, areas=AREAS, limit=None):
    reference = official(truth, results, task, limit or 1000).eval
    matching = matched(truth, results, task, areas, max_detections=limit)
    for area in range(len(areas)):
        _, recall, curves = average_precisions(matching, area)
        expected = reference["precision"][:, :, :, area, -1].transpose(0, 2, 1)
        np.testing.assert_allclose(np.nan_to_num(curves, nan=-1), expected, atol=1e-12)
        np.testing.assert_allclose(np.nan_to_num(recall, nan=-1), reference["recall"][:, :, area, -1], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["bbox", "segm"]), st.sampled_from([None, 2]))
def test_precision_and_recall_are_those_of_pycocotools(seed, task, limit):
    truth, results = random_scene(seed)
    assert_is_official(truth, results, task, limit=limit)


def with_keypoints(truth, results, count, rng):
    """Keypoints in the objects' boxes, some not visible, and none at all in some objects."""
    for own in truth["annotations"]:
        x, y, w, h = own["bbox"]
        visible = rng.integers(0, 3, count) * (rng.random() > 0.2)
        points = np.stack([rng.uniform(x, x + w, count), rng.uniform(y, y + h, count), visible], axis=1)
        own.update(keypoints=points.ravel().tolist(), num_keypoints=int((visible > 0).sum()))
    for result in results:
        x, y, w, h = result["bbox"]
        near = min(
            (own for own in truth["annotations"]), key=lambda own: abs(own["bbox"][0] - x) + abs(own["bbox"][1] - y)
        )
        points = np.array(near["keypoints"]).reshape(-1, 3) + rng.normal(0, 1, (count, 3))
        result["keypoints"] = points.ravel().tolist()


@pytest.mark.parametrize("seed", range(4))
def test_keypoints_are_those_of_pycocotools(seed):
    truth, results = random_scene(seed, classes=1)
    with_keypoints(truth, results, 17, np.random.default_rng(seed))
    assert_is_official(truth, results, "keypoints", [ALL_AREAS, *AREAS[2:]])


def test_a_teams_own_skeleton_takes_its_own_sigmas():
    truth = truth_of([(1, 0, 10, 10, 40, 40)])
    truth["annotations"][0].update(keypoints=[20, 20, 2, 40, 40, 2, 30, 30, 0], num_keypoints=2)
    results = perfect(truth)
    results[0]["keypoints"] = [20, 20, 1, 44, 43, 1, 0, 0, 1]  # the second is 5 px off; the third is not annotated
    matching = matched(truth, results, "keypoints", [ALL_AREAS], sigmas=[0.05, 0.1, 0.1])
    similarity = (1 + np.exp(-25 / (2 * 1600 * (2 * 0.1) ** 2))) / 2
    np.testing.assert_allclose(matching.pairs.overlaps[0], [[similarity]])
    with pytest.raises(ValueError, match=r"sigma for each of the 3 keypoints"):
        matched(truth, results, "keypoints", [ALL_AREAS])
    assert len(COCO_SIGMAS) == 17


def test_the_surest_detection_has_the_object_and_a_crowd_takes_all():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 60, 60, 40, 40, 1)])
    results = [found(1, 0, 10, 10, 20, 20, 0.5), found(1, 0, 11, 10, 20, 20, 0.9)]
    results += [found(1, 0, 65, 65, 10, 10), found(1, 0, 70, 70, 10, 10)]
    matching = matched(truth, results, areas=[ALL_AREAS])
    of_result = dict(zip(matching.pairs.result.tolist(), matching.found[0, 0].tolist(), strict=True))
    assert of_result == {0: -1, 1: 0, 2: 1, 3: 1}
    ignored = dict(zip(matching.pairs.result.tolist(), matching.ignored[0, 0].tolist(), strict=True))
    assert ignored == {0: False, 1: False, 2: True, 3: True}


def test_masks_are_ranked_by_mask_scores_and_boxes_are_not():
    truth = truth_of([(1, 0, 10, 10, 20, 20)])
    results = [{**found(1, 0, 10, 10, 20, 20, 0.9), "mask_score": 0.1}, found(1, 0, 60, 60, 20, 20, 0.5)]
    ap = {task: average_precisions(matched(truth, results, task))[0][0, 0] for task in ("bbox", "segm")}
    assert ap == pytest.approx({"bbox": 1.0, "segm": 0.5})


@pytest.mark.parametrize("task", ["bbox", "segm", "boundary"])
def test_300_perfect_objects_are_all_found(task):
    truth = truth_of([(1, 0, 8 * (i % 20), 8 * (i // 20), 6, 6) for i in range(300)])
    assert np.nanmin(average_precisions(matched(truth, perfect(truth), task))[0]) == 1


def test_nothing_found_is_0_and_nothing_to_find_is_nan():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (2, 1, 10, 10, 20, 20, 1)], images=3, classes=3)
    ap, recall, _ = average_precisions(matched(truth, []))
    assert (ap[:, 0] == 0).all()
    assert (recall[:, 0] == 0).all()
    assert np.isnan(ap[:, 1:]).all()
    empty = truth_of([], images=2)
    assert np.isnan(average_precisions(matched(empty, [found(1, 0, 1, 1, 5, 5)]))[0]).all()
    assert np.isnan(average_precisions(matched(truth_of([], images=0), []))[0]).all()
