"""Overlaps: keypoint similarity by hand, scores that rank masks."""

import numpy as np
import pytest

from maskrcnn_ext.evaluation.average_precision import ALL_AREAS, average_precisions
from maskrcnn_ext.evaluation.overlaps import COCO_SIGMAS
from tests.helpers.scenes import found, match_scene, perfect, truth_of


def test_a_teams_own_skeleton_takes_its_own_sigmas():
    truth = truth_of([(1, 0, 10, 10, 40, 40)])
    truth["annotations"][0].update(keypoints=[20, 20, 2, 40, 40, 2, 30, 30, 0], num_keypoints=2)
    results = perfect(truth)
    results[0]["keypoints"] = [20, 20, 1, 44, 43, 1, 0, 0, 1]  # the second is 5 px off; the third is not annotated
    matching = match_scene(truth, results, "keypoints", [ALL_AREAS], sigmas=[0.05, 0.1, 0.1])
    similarity = (1 + np.exp(-25 / (2 * 1600 * (2 * 0.1) ** 2))) / 2
    np.testing.assert_allclose(matching.pairs.overlaps[0], [[similarity]])
    with pytest.raises(ValueError, match=r"sigma for each of the 3 keypoints"):
        match_scene(truth, results, "keypoints", [ALL_AREAS])
    assert len(COCO_SIGMAS) == 17


def test_masks_are_ranked_by_mask_scores_and_boxes_are_not():
    truth = truth_of([(1, 0, 10, 10, 20, 20)])
    results = [{**found(1, 0, 10, 10, 20, 20, 0.9), "mask_score": 0.1}, found(1, 0, 60, 60, 20, 20, 0.5)]
    ap = {task: average_precisions(match_scene(truth, results, task))[0][0, 0] for task in ("bbox", "segm")}
    assert ap == pytest.approx({"bbox": 1.0, "segm": 0.5})
