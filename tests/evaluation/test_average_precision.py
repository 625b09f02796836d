"""The matching and AP are pycocotools' own, number for number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, average_precisions
from tests.helpers.scenes import (
    COCO_AREAS,
    add_keypoints,
    found,
    match_scene,
    official,
    perfect,
    random_scene,
    truth_of,
)


def assert_is_official(truth, results, task, areas=COCO_AREAS, limit=None):
    reference = official(truth, results, task, limit or 1000).eval
    matching = match_scene(truth, results, task, areas, max_detections=limit)
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


@pytest.mark.parametrize("seed", range(4))
def test_keypoints_are_those_of_pycocotools(seed):
    truth, results = random_scene(seed, classes=1)
    add_keypoints(truth, results, 17, np.random.default_rng(seed))
    assert_is_official(truth, results, "keypoints", [ALL_AREAS, *COCO_AREAS[2:]])


def test_the_highest_score_has_the_object_and_a_crowd_takes_all():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (1, 0, 60, 60, 40, 40, 1)])
    results = [found(1, 0, 10, 10, 20, 20, 0.5), found(1, 0, 11, 10, 20, 20, 0.9)]
    results += [found(1, 0, 65, 65, 10, 10), found(1, 0, 70, 70, 10, 10)]
    matching = match_scene(truth, results, areas=[ALL_AREAS])
    of_result = dict(zip(matching.pairs.result.tolist(), matching.found[0, 0].tolist(), strict=True))
    assert of_result == {0: -1, 1: 0, 2: 1, 3: 1}
    ignored = dict(zip(matching.pairs.result.tolist(), matching.ignored[0, 0].tolist(), strict=True))
    assert ignored == {0: False, 1: False, 2: True, 3: True}


@pytest.mark.parametrize("task", ["bbox", "segm", "boundary"])
def test_300_perfect_objects_are_all_found(task):
    truth = truth_of([(1, 0, 8 * (i % 20), 8 * (i // 20), 6, 6) for i in range(300)])
    assert np.nanmin(average_precisions(match_scene(truth, perfect(truth), task))[0]) == 1


def test_nothing_found_is_0_and_nothing_to_find_is_nan():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (2, 1, 10, 10, 20, 20, 1)], images=3, classes=3)
    ap, recall, _ = average_precisions(match_scene(truth, []))
    assert (ap[:, 0] == 0).all()
    assert (recall[:, 0] == 0).all()
    assert np.isnan(ap[:, 1:]).all()
    empty = truth_of([], images=2)
    assert np.isnan(average_precisions(match_scene(empty, [found(1, 0, 1, 1, 5, 5)]))[0]).all()
    assert np.isnan(average_precisions(match_scene(truth_of([], images=0), []))[0]).all()
