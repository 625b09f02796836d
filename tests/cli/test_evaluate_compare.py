"""`maskrcnn-ext evaluate` and `maskrcnn-ext compare` on the results of no model."""

import json

import numpy as np
import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from maskrcnn_ext.cli import main
from maskrcnn_ext.evaluation.truth import load_truth


@pytest.fixture(scope="module")
def files(tmp_path_factory, shapes):
    """Results of the generated images: as good as the truth, and with masks of which some are lost."""
    folder = tmp_path_factory.mktemp("results")
    truth = load_truth(shapes)
    rng = np.random.default_rng(0)
    keys = ("image_id", "category_id", "bbox", "segmentation")
    good = [{key: own[key] for key in keys} | {"score": float(rng.random())} for own in truth.annotations]
    (folder / "good.json").write_text(json.dumps(good))
    (folder / "poor.json").write_text(json.dumps(good[::2]))
    return folder


def test_evaluate_prints_tables_and_writes_files(files, shapes, capsys, tmp_path):
    assert main(["evaluate", str(files / "good.json"), str(shapes), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| bbox   | 100.00 | 100.00 | 100.00 | 100.00 |" in printed
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["tasks"].keys() == {"bbox", "segm"}
    assert str(tmp_path / "out" / "segm_confusion.csv") in printed


def test_evaluate_takes_a_data_set_and_its_settings(files, shapes, capsys):
    options = ["--task", "bbox", "--iou", "0.75", "--threshold", "0.2", "--max-detections", "3"]
    assert main(["evaluate", str(files / "poor.json"), f"coco:{shapes}@{shapes.parent}", *options]) == 0
    printed = capsys.readouterr().out
    assert "At IoU 0.75, detections with a score of at least 0.2:" in printed
    assert "segm" not in printed


def test_keypoints_of_a_teams_own_skeleton(capsys, tmp_path):
    own = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "keypoints": [2, 2, 2, 9, 9, 2]}
    images = [{"id": 1, "height": 30, "width": 30}]
    truth = {"images": images, "categories": [{"id": 1, "name": "leaf"}], "annotations": [own]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([{**own, "score": 1}]))
    files = [str(tmp_path / "results.json"), str(tmp_path / "truth.json")]
    assert main(["evaluate", *files, "--sigmas", "0.1", "0.2"]) == 0
    assert "| keypoints | 100.00" in capsys.readouterr().out
    assert main(["compare", files[0], *files, "--sigmas", "0.1", "0.2", "--resamples", "2"]) == 0
    assert "keypoints: 1 images" in capsys.readouterr().out
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
def test_mistakes_are_one_line(files, shapes, capsys, tmp_path, change, message):
    results = json.loads((files / "good.json").read_text())
    (tmp_path / "wrong.json").write_text(json.dumps([{**results[0], **change}]))
    assert main(["evaluate", str(tmp_path / "wrong.json"), str(shapes)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_compare_says_what_differs(files, shapes, capsys):
    poor, good = str(files / "poor.json"), str(files / "good.json")
    assert main(["compare", poor, good, str(shapes), "--task", "bbox", "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "| AP " in printed
    assert "100.00" in printed
    assert "With fewer than 10 images" in printed  # eight
    assert main(["compare", good, good, str(shapes), "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("not distinguishable") == printed.count("+0.00 to +0.00") > 0
    assert "segm: 8 images, 20 draws" in printed


def make_run(folder, results, data_set):
    (folder / "inference").mkdir(parents=True)
    config = OmegaConf.create({"dataloader": {"test": {"dataset": {"names": data_set}}}})
    LazyConfig.save(config, str(folder / "config.yaml"))
    (folder / "inference" / "coco_instances_results.json").write_text(results.read_text())
    return folder


def test_compare_takes_the_folders_of_runs(files, shapes, capsys, tmp_path):
    name = f"coco:{shapes}@{shapes.parent}"
    a = make_run(tmp_path / "a", files / "poor.json", name)
    b = make_run(tmp_path / "b", files / "good.json", [name])
    assert main(["compare", str(a), str(b), "--task", "segm", "--resamples", "10"]) == 0
    assert "segm: 8 images" in capsys.readouterr().out
    other = make_run(tmp_path / "other", files / "good.json", "balloon_val")
    several = make_run(tmp_path / "several", files / "good.json", [name, "balloon_val"])
    for pair, message in (
        ((a, other), "was evaluated on"),
        ((several, several), "on 2 data sets"),
        ((a, files / "good.json"), "is not the folder of a run"),
        ((tmp_path, tmp_path), "is not the folder of a run"),
    ):
        assert main(["compare", *map(str, pair)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "say TRUTH" in error
        assert error.count("\n") == 1
    assert main(["compare", str(a), str(other), str(shapes), "--resamples", "5"]) == 0
