"""Suspect labels: each kind of error is found first, normal deviations are not, and scores follow the rules."""

import numpy as np
import pytest

from maskrcnn_ext.evaluation.label_errors import find_label_errors
from maskrcnn_ext.evaluation.results import load_results
from maskrcnn_ext.evaluation.truth import load_truth
from maskrcnn_ext.ops.rle import encode_mask

CATEGORIES = [{"id": 1, "name": "a"}, {"id": 5, "name": "b"}]
GRID = [(10 + 30 * x, 10 + 30 * y) for y in range(3) for x in range(4)]


def outlined(x, y, side=16, category=1, image=1, **others):
    mask = np.zeros((100, 130), bool)
    mask[y : y + side, x : x + side] = True
    rle = encode_mask(mask)
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, side, side],
        "segmentation": rle,
        "area": float(mask.sum()),
        "iscrowd": 0,
        **others,
    }


def suspects(annotations, detections, images=(1,)):
    content = {
        "images": [{"id": image, "height": 100, "width": 130} for image in images],
        "categories": CATEGORIES,
        "annotations": annotations,
    }
    truth = load_truth(content)
    return find_label_errors(truth, load_results(detections, truth))


def right():
    """Twelve objects of two classes, each with a detection."""
    annotations = [outlined(x, y, category=(1, 5)[i % 2], id=i + 1) for i, (x, y) in enumerate(GRID)]
    return annotations, [{**found, "score": 0.8} for found in annotations]


def test_labels_that_the_model_confirms_are_not_suspect():
    assert suspects(*right()) == []


def test_a_missing_object_is_first():
    annotations, detections = right()
    (first,) = suspects(annotations[1:], detections)
    assert (first.kind, first.object, first.result) == ("missing", None, 0)
    # Of 12 confident detections, 11 lie on objects: smoothed by the same share of the whole set.
    assert first.score == pytest.approx(11 / 12)


def test_a_spurious_object_is_first_with_the_score_of_the_rule():
    annotations, detections = right()
    (first,) = suspects(annotations, detections[:3] + detections[4:])
    assert (first.kind, first.object, first.result) == ("spurious", 3, None)
    assert first.score == pytest.approx(1.0)
    # In an image where the model finds little, an object that it does not find is less suspect.
    found = suspects(annotations, detections[:3])
    assert {one.kind for one in found} == {"spurious"}
    assert max(one.score for one in found) < 0.5


def test_a_wrong_class_is_first():
    annotations, detections = right()
    annotations[4]["category_id"] = 5
    (first,) = suspects(annotations, detections)
    assert (first.kind, first.object, first.result) == ("class", 4, 4)
    assert first.score == pytest.approx(1.0)


def test_a_bad_outline_is_first_and_the_detection_is_not_missing_too():
    annotations, detections = right()
    x, y = GRID[6]
    annotations[6] = outlined(x + 6, y + 6, category=1, id=7)
    (first,) = suspects(annotations, detections)
    assert (first.kind, first.object, first.result) == ("outline", 6, 6)
    iou = 10 * 10 / (2 * 256 - 100)
    assert first.score == pytest.approx(1 - iou, abs=0.01)


def test_scores_count_in_relation_to_those_of_right_detections():
    annotations, detections = right()
    for found in detections:
        found["score"] = 0.2
    (first,) = suspects(annotations[1:], detections)
    assert first.kind == "missing"
    assert first.score == pytest.approx(11 / 12)


def test_detections_in_crowds_parts_of_objects_and_duplicates_are_not_missing_objects():
    annotations, detections = right()
    crowd = outlined(100, 60, side=30, id=13, iscrowd=1)
    inside = [outlined(105, 65, side=10, score=0.9), outlined(GRID[0][0], GRID[0][1], side=8, score=0.9)]
    assert suspects([*annotations, crowd], [*detections, *inside]) == []
    twice = [outlined(112, 75, side=14, score=0.9), outlined(113, 75, side=14, score=0.7)]
    (first,) = suspects(annotations, [*detections, *twice])
    assert first.result == 12


def test_boxes_are_compared_without_masks():
    annotations, detections = right()
    for found in (*annotations, *detections):
        del found["segmentation"]
    (first,) = suspects(annotations[1:], detections)
    assert (first.kind, first.result) == ("missing", 0)


def test_nothing_to_compare_is_no_error():
    assert suspects([], []) == []
    annotations, detections = right()
    assert suspects(annotations, []) == []  # a model that finds nothing contradicts nothing
    assert {one.kind for one in suspects([], detections)} == {"missing"}
    assert len(suspects(annotations[1:], detections, images=(1, 2))) == 1
