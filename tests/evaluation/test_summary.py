"""The summary: its numbers agree with each other and with pycocotools, and wrong settings are one line."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.summary import area_bins, evaluate
from maskrcnn_ext.evaluation.truth import load_truth
from maskrcnn_ext.ops.rle import segmentation_to_rle
from tests.helpers.scenes import found, official, perfect, random_scene, truth_of


@pytest.fixture(scope="module")
def scene():
    return random_scene(7, images=12)


@pytest.fixture(scope="module")
def summary(scene):
    return evaluate(*scene)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_averages_are_those_of_pycocotools(scene, summary, task):
    reference = official(*scene, task).eval

    def mean(values):
        return pytest.approx(100 * values[values > -1].mean(), abs=1e-6)

    of_task, precision = summary["tasks"][task], reference["precision"][..., 0]
    assert of_task["AP"] == mean(precision[:, :, :, 0])
    assert of_task["AP50"] == mean(precision[0, :, :, 0])
    assert of_task["AP75"] == mean(precision[5, :, :, 0])
    assert of_task["AR"] == mean(reference["recall"][:, :, 0])
    assert list(of_task["AP_by_iou"]) == [f"{0.5 + 0.05 * i:.2f}" for i in range(10)]
    assert of_task["AP_by_iou"]["0.95"] == mean(precision[9, :, :, 0])
    for index, area in enumerate(of_task["areas"], start=1):
        values = precision[:, :, :, index]
        assert area["AP"] is None if (values < 0).all() else area["AP"] == mean(values)
    for index, row in enumerate(of_task["per_class"]):
        assert row["AP"] == mean(precision[:, :, index, 0])
        assert row["AR"] == mean(reference["recall"][:, index, 0])
    assert of_task["curves"]["precision"]["0.75"][1] == pytest.approx(precision[5, :, 1, 0])


def test_its_numbers_agree_with_each_other(scene, summary):
    truth, results = scene
    of_task = summary["tasks"]["segm"]
    crowds = sum(own["iscrowd"] for own in truth["annotations"])
    assert crowds > 0
    assert summary["data"] == {
        "images": 12,
        "objects": len(truth["annotations"]) - crowds,
        "crowds": crowds,
        "results": len(results),
    }
    counts = np.array(of_task["confusion"]["counts"])
    assert counts[:-1].sum(axis=1).tolist() == [row["objects"] for row in of_task["per_class"]]
    for key in ("true_positives", "false_positives", "missed"):
        total = of_task["at_threshold"][key]
        assert total == sum(row[key] for row in of_task["per_class"]) == sum(row[key] for row in of_task["images"])
    wrong = [index for row in of_task["images"] for index in row["wrong"]]
    assert sorted(wrong) == sorted(row["result"] for row in of_task["wrong"])
    assert len(wrong) == of_task["at_threshold"]["false_positives"]
    scores = [row["score"] for row in of_task["wrong"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.5
    for row in of_task["wrong"]:
        assert results[row["result"]]["score"] == row["score"]
        assert results[row["result"]]["image_id"] == row["image_id"]
    missed = [truth["annotations"][index] for row in of_task["images"] for index in row["not_found"]]
    assert len(missed) == of_task["at_threshold"]["missed"]
    for row in of_task["images"]:
        assert {truth["annotations"][index]["image_id"] for index in row["not_found"]} <= {row["image_id"]}
        assert row["quality"] is None or 0 <= row["quality"] <= row["F1"]
    bins = of_task["area_bins"]
    assert sum(row["objects"] for row in bins) == summary["data"]["objects"]
    assert max(row["objects"] for row in bins) - min(row["objects"] for row in bins) <= 3
    assert sum(row["count"] for row in of_task["calibration"]["bins"]) > 0


def test_a_perfect_model():
    truth = truth_of([(1, 0, 10, 10, 20, 20), (2, 1, 20, 20, 60, 60)], images=3, classes=2)
    for of_task in evaluate(truth, perfect(truth), tasks=["bbox", "segm", "boundary"])["tasks"].values():
        assert [of_task["AP"], of_task["AR"], of_task["AP_by_iou"]["0.95"]] == pytest.approx([100] * 3)
        assert of_task["at_threshold"]["F1"] == of_task["best"]["F1"] == 1
        assert of_task["confusion"]["counts"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
        assert [row["quality"] for row in of_task["images"]] == [1, 1, None]
        assert of_task["wrong"] == []
        assert of_task["calibration"]["ECE"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("truth", "results"),
    [
        (truth_of([(1, 0, 10, 10, 20, 20)]), []),
        (truth_of([]), [found(1, 0, 1, 1, 9, 9)]),
        (truth_of([]), []),
        (truth_of([], images=0), []),
        (truth_of([(1, 0, 10, 10, 20, 20, 1)]), [found(1, 0, 12, 12, 9, 9), found(1, 0, 90, 90, 9, 9)]),
    ],
)
def test_empty_inputs_and_only_crowds(truth, results):
    summary = evaluate(truth, results)
    json.dumps(summary, allow_nan=False)
    assert "bbox" in summary["tasks"]
    for of_task in summary["tasks"].values():
        has_objects = any(not own["iscrowd"] for own in truth["annotations"])
        assert of_task["AP"] == (0 if has_objects else None)
        in_use = of_task["at_threshold"]
        assert in_use["false_positives"] == (1 if results else 0)
        assert in_use["missed"] == int(has_objects)


def test_an_iou_that_is_none_of_cocos(scene):
    of_task = evaluate(*scene, tasks=["bbox"], iou=0.3)["tasks"]["bbox"]
    usual = evaluate(*scene, tasks=["bbox"])["tasks"]["bbox"]
    assert of_task["AP"] == usual["AP"]
    assert of_task["at_threshold"]["true_positives"] >= usual["at_threshold"]["true_positives"]
    assert of_task["errors"]["AP"] > usual["errors"]["AP"]


def test_bins_are_cut_at_quantiles():
    assert area_bins(np.arange(1, 9.0), 2) == [(0, 4.5), (np.nextafter(4.5, 5), np.inf)]
    assert area_bins(np.full(5, 7.0), 4) == [(0, 7), (np.nextafter(7, 8), np.inf)]
    assert area_bins(np.zeros(0), 4) == [(0, np.inf)]


def test_truth_is_taken_in_every_form(tmp_path, scene, summary):
    truth, results = scene
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    before = json.dumps([truth, results])
    for form in (file, str(file), truth, COCO(str(file)), f"coco:{file}@{tmp_path}"):
        assert evaluate(form, tmp_path / "results.json") == summary
        assert evaluate(form, results) == summary
    assert json.dumps([truth, results]) == before


def test_other_mistakes_are_one_line(tmp_path):
    truth = truth_of([(1, 0, 10, 10, 20, 20)])
    with pytest.raises(InputError, match="these are annotations"):
        evaluate(truth, truth)
    with pytest.raises(InputError, match="no such file"):
        evaluate(tmp_path / "none.json", [])
    with pytest.raises(InputError, match="is registered"):
        evaluate("nuclei_vall", [])
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(InputError, match="not a JSON file"):
        evaluate(truth, tmp_path / "text.json")
    with pytest.raises(InputError, match="unknown task 'mask'"):
        evaluate(truth, [], tasks=["mask"])
    with pytest.raises(InputError, match="entry 0 has no `segmentation`"):
        evaluate(truth, [{"image_id": 1, "category_id": 10, "score": 1, "bbox": [0, 0, 1, 1]}], tasks=["segm"])
    with pytest.raises(InputError, match="no `keypoints`"):
        evaluate(truth, [], tasks=["keypoints"])
    for wrong in ({"iou": 0}, {"score_threshold": 2}, {"max_detections": 0}):
        with pytest.raises(InputError, match="expected"):
            evaluate(truth, [], **wrong)


@pytest.mark.realdata
def test_real_annotations_find_themselves(real_data):
    file = real_data / "coco_open" / "instances_val.json"
    truth = load_truth(file)
    results = []
    for own in truth.annotations:
        if not own["iscrowd"]:
            size = next((i["height"], i["width"]) for i in truth.images if i["id"] == own["image_id"])
            rle = segmentation_to_rle(own["segmentation"], *size)
            keys = {key: own[key] for key in ("image_id", "category_id", "bbox")}
            results.append({**keys, "score": 1.0, "segmentation": rle})
    tasks = evaluate(truth, results)["tasks"]
    assert tasks["bbox"]["AP"] == pytest.approx(100)
    assert tasks["segm"]["AP"] == pytest.approx(100)
    assert sum(tasks["segm"]["errors"]["counts"].values()) == 0
