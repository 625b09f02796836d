"""``maskrcnn-ext evaluate`` on COCO results without a model."""

import json

import pytest

from maskrcnn_ext.cli import main
from tests.helpers.result_files import result_files  # noqa: F401


def test_evaluate_prints_tables_and_writes_files(result_files, shapes, capsys, tmp_path):
    assert main(["evaluate", str(result_files / "good.json"), str(shapes), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| bbox   | 100.00 | 100.00 | 100.00 | 100.00 |" in printed
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["tasks"].keys() == {"bbox", "segm"}
    assert str(tmp_path / "out" / "segm_confusion.csv") in printed


def test_evaluate_takes_a_data_set_and_its_settings(result_files, shapes, capsys):
    options = ["--task", "bbox", "--iou", "0.75", "--threshold", "0.2", "--max-detections", "3"]
    assert main(["evaluate", str(result_files / "poor.json"), f"coco:{shapes}@{shapes.parent}", *options]) == 0
    printed = capsys.readouterr().out
    assert "At IoU 0.75, detections with a score of at least 0.2:" in printed
    assert "segm" not in printed


def test_keypoints_of_another_skeleton(capsys, tmp_path):
    own = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "keypoints": [2, 2, 2, 9, 9, 2]}
    images = [{"id": 1, "height": 30, "width": 30}]
    truth = {"images": images, "categories": [{"id": 1, "name": "leaf"}], "annotations": [own]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([{**own, "score": 1}]))
    files = [str(tmp_path / "results.json"), str(tmp_path / "truth.json")]
    assert main(["evaluate", *files, "--sigmas", "0.1", "0.2"]) == 0
    assert "| keypoints | 100.00" in capsys.readouterr().out
    assert main(["compare", files[0], *files, "--sigmas", "0.1", "0.2", "--resamples", "2"]) == 0
    assert "keypoints: 1 image" in capsys.readouterr().out
    assert main(["evaluate", *files]) == 2
    assert "sigma for each of the 2 keypoints" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 10**6}, "of no image of"),
        ({"category_id": 10**6}, "of no category of"),
        ({"score": "high"}, "entry 0 has the `score` 'high'"),
    ],
)
def test_mistakes_are_one_line(result_files, shapes, capsys, tmp_path, change, message):
    results = json.loads((result_files / "good.json").read_text())
    (tmp_path / "wrong.json").write_text(json.dumps([{**results[0], **change}]))
    assert main(["evaluate", str(tmp_path / "wrong.json"), str(shapes)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_broken_truth_is_one_line(result_files, shapes, capsys, tmp_path):
    truth = json.loads(shapes.read_text())
    truth["annotations"][3]["segmentation"] = [["1", "2", "3", "4", "5", "6"]]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert main(["evaluate", str(result_files / "good.json"), str(tmp_path / "truth.json")]) == 2
    error = capsys.readouterr().err
    assert f"truth.json: annotation {truth['annotations'][3]['id']} has a `segmentation`" in error
    assert error.count("\n") == 1
