"""COCO results are checked against the ground truth, and completed."""

import math

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


@pytest.mark.parametrize(
    "change",
    [
        {"segmentation": [[4, math.nan, 14, 4, 14, 14]]},
        {"segmentation": [[4, 1e30, 14, 4, 14, 14]]},
        {"segmentation": [[4, 10**400, 14, 4, 14, 14]]},
        {"segmentation": [["4", 4, 14, 4, 14, 14]]},
        {"segmentation": {"size": [32, 32], "counts": 1}},
        {"bbox": [4, 4, 10**400, 10]},
        {"score": 10**400},
        {"score": math.inf},
    ],
    ids=str,
)
def test_values_that_crash_or_mislead_pycocotools_are_one_line(change):
    truth = load_truth(
        {
            "images": [{"id": 1, "height": 32, "width": 32}],
            "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [4, 4, 10, 10]}],
        }
    )
    result = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 10, 10], "score": 0.5}
    assert len(load_results([result], truth)) == 1
    with pytest.raises(InputError, match="entry 0 has") as caught:
        load_results([{**result, **change}], truth)
    assert "\n" not in str(caught.value)
