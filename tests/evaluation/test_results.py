"""COCO results are checked against the ground truth, and completed."""

import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.scenes import found, perfect, truth_of

BROKEN_RESULTS = {
    "of no image": {"image_id": 4},
    "of no category of .*its ids are 10": {"category_id": 1},
    "`score` nan": {"score": float("nan")},
    "`bbox` .*sides of at least 0": {"bbox": [1, 2, 3]},
    "neither an RLE nor polygons": {"segmentation": {"size": [120, 160]}},
    r"RLE of size \[2, 2\].*120 x 160": {"segmentation": {"size": [2, 2], "counts": "04"}},
    "`counts` are cut off": {"segmentation": {"size": [120, 160], "counts": "PPP"}},
    "three numbers a keypoint": {"keypoints": [1, 2]},
    "`mask_score` None": {"mask_score": None},
}


@pytest.mark.parametrize("message", BROKEN_RESULTS)
def test_broken_results_are_one_line(message):
    truth = truth_of([(1, 0, 10, 10, 20, 20)])
    with pytest.raises(InputError, match=message) as error:
        load_results(
            [found(1, 0, 10, 10, 20, 20), {**found(1, 0, 10, 10, 20, 20), **BROKEN_RESULTS[message]}], load_truth(truth)
        )
    assert "\n" not in str(error.value)


def test_results_without_boxes_have_those_of_their_masks():
    truth = truth_of([(1, 0, 10, 10, 20, 20)])
    results = [{key: value for key, value in own.items() if key != "bbox"} for own in perfect(truth)]
    assert evaluate(truth, results)["tasks"]["bbox"]["AP"] == pytest.approx(100)
