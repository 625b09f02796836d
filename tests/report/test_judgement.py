"""What three sentences say about an evaluation agrees with its numbers."""

import pytest

from maskrcnn_ext.cli.report import evaluate_with_interval
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.report.judgement import judge, sum_up
from maskrcnn_ext.report.run import read_run
from tests.helpers.run_folders import shapes_run
from tests.helpers.scenes import perfect, random_scene

RISING = [(99, 20.0), (199, 31.5)]


@pytest.fixture(scope="module")
def truth():
    return random_scene(5, images=12)[0]


def judged(truth, results, history=RISING):
    return judge(evaluate(truth, results, tasks=["bbox"])["tasks"]["bbox"], history)


def test_perfect_results(truth):
    counts, error, trend = judged(truth, perfect(truth, 0.9))
    objects = sum(not annotation["iscrowd"] for annotation in truth["annotations"])
    assert counts.startswith(f"0 % of the {objects:,} objects were missed")
    assert "and 0 % of the" in counts
    assert error == "No kind of error dominates."
    assert trend == "AP still rises (+11.5 since iteration 99): train longer."


def test_missed_objects_and_empty_places(truth):
    found = perfect(truth, 0.9)
    few, false = found[::2], [{**result, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.95} for result in found]
    counts, error, _ = judged(truth, few)
    missed = len(found) - len(few)
    assert counts.startswith(f"{100 * missed / len(found):.0f} % of the")
    assert error.startswith("Objects that are not found cost most (")
    assert judged(truth, found + false)[1].startswith("Detections where no object is cost most (")


def test_the_class_that_is_taken_for_another(truth):
    names = {category["id"]: category["name"] for category in truth["categories"]}
    one, other = list(names)[:2]
    swapped = [
        {**result, "category_id": other if result["category_id"] == one else result["category_id"]}
        for result in perfect(truth, 0.9)
    ]
    count = sum(result["category_id"] == one for result in perfect(truth, 0.9))
    error = judged(truth, swapped)[1]
    assert error.startswith(
        f"Wrong classes cost most: {names[one]} is taken for {names[other]} {count} times of {count} ("
    )


@pytest.mark.parametrize(
    ("history", "trend"),
    [
        ([(9, 20.0)], "One evaluation does not show whether AP still rises."),
        ([(9, 20.0), (9, 20.0)], "One evaluation does not show whether AP still rises."),
        ([(9, 20.0), (19, 30.0), (29, 22.0)], "AP was highest after iteration 19 (30.0) and has fallen since"),
        ([(9, 20.0), (19, 30.0), (29, 30.2)], "AP no longer rises"),
        ([(9, 1.1), (19, 1.3)], "AP still rises (+0.2 since iteration 9)"),
        ([(9, 0.0), (19, 0.9)], "The model has learnt next to nothing"),
    ],
)
def test_trends(truth, history, trend):
    assert judged(truth, perfect(truth, 0.9), history)[2].startswith(trend)


def test_no_detections_and_no_objects(truth):
    assert judged(truth, [])[0].endswith("were missed: no detection has a high enough score.")
    empty = {**truth, "annotations": []}
    assert judged(empty, []) == ["The validation images have no objects, so nothing can be judged."]


def test_a_share_is_whole_only_if_all_are_meant(truth):
    found = perfect(truth, 0.9)
    one, many = found[:1], [{**found[0], "bbox": [0.0, 0.0, 1.0, 1.0]}] * 400
    assert "and over 99 % of the 401 detections are wrong" in judged(truth, one + many)[0]
    right = [{**each, "image_id": image["id"]} for image in truth["images"] for each in many[:1]]
    assert "100 % of the 12 detections are wrong" in judged(truth, right)[0]


def test_a_single_object():
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 20], "area": 600, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    found = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 20], "score": 0.9}
    assert judged(truth, [])[0] == "The only object was missed: no detection has a high enough score."
    assert judged(truth, [found])[0] == "The only object was found, and the only detection is right."
    wrong = {**found, "bbox": [40, 40, 10, 10]}
    assert judged(truth, [wrong])[0] == "The only object was missed, and the only detection is wrong."


def test_the_sum_of_a_run(shapes, tmp_path):
    run = read_run(shapes_run(tmp_path / "run", shapes))
    evaluated, _ = evaluate_with_interval(run, 0.5)
    headline, *sentences = sum_up(run, evaluated)
    ap = evaluated.summary["tasks"]["segm"]["AP"]
    assert headline.startswith(f"AP of masks: {ap:.1f} (95 % interval ")
    assert headline.endswith(" on 8 images, too few to rely on.")
    assert len(sentences) == 3
