"""Exported models: their results become COCO results."""

import numpy as np
import pytest
from pycocotools import mask as mask_util

from maskrcnn_ext.benchmark.export import average_precision, coco_results
from maskrcnn_ext.evaluation.truth import load_truth


@pytest.fixture
def found():
    """One object, as a runtime returns it."""
    return {
        "boxes": np.array([[2.0, 3.0, 8.0, 9.0]]),
        "scores": np.array([0.9]),
        "classes": np.array([1]),
        "masks": [((2, 3), np.ones((6, 6), np.uint8))],
    }


def test_results_have_category_ids_boxes_and_masks(found):
    (result,) = coco_results(found, 7, (20, 30), (11, 12))
    assert (result["image_id"], result["category_id"], result["bbox"], result["score"]) == (7, 12, [2, 3, 6, 6], 0.9)
    assert mask_util.decode(result["segmentation"]).sum() == 36


def test_the_ap_of_a_perfect_result_is_100(found):
    results = coco_results(found, 7, (20, 30), (11, 12))
    annotation = {**results[0], "id": 1, "area": 36, "iscrowd": 0}
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 11, "name": "a"}, {"id": 12, "name": "b"}],
        "annotations": [annotation],
    }
    truth = load_truth(content).as_coco()
    for task in ("bbox", "segm"):
        assert average_precision(truth, results, task, [7], 100) == pytest.approx(100)
