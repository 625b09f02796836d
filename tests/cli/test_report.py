"""``maskrcnn-ext report`` writes the page of one run or of several; mistakes are one line."""

import json

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.cli.report import evaluate_run
from maskrcnn_ext.report.run import read_run
from tests.helpers.labelled_images import noise, write_data
from tests.helpers.run_folders import make_run, shapes_run

RESULTS = "inference/coco_instances_results.json"


@pytest.fixture
def run_folder(shapes, tmp_path):
    return shapes_run(tmp_path / "run", shapes)


def test_the_command(run_folder, tmp_path, capsys):
    assert main(["report", str(run_folder)]) == 0
    assert capsys.readouterr().out == f"{run_folder / 'report.html'}\n"
    assert "<title>run</title>" in (run_folder / "report.html").read_text()
    page = tmp_path / "both.html"
    assert main(["report", str(run_folder), str(run_folder), "-o", str(page), "--title", "twice"]) == 0
    assert "<title>twice</title>" in page.read_text()


def test_mistakes_are_one_line(run_folder, tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert "nowhere is not the folder of a run" in error
    assert error.count("\n") == 1
    assert main(["report", str(run_folder), "--threshold", "2"]) == 2
    assert "score_threshold 2.0" in capsys.readouterr().err
    (run_folder / RESULTS).write_text("[{]")
    assert main(["report", str(run_folder)]) == 2
    assert "not a JSON file" in capsys.readouterr().err


def test_own_keypoints_are_judged_with_the_sigmas_of_the_run(tmp_path):
    """As `train` plans them: the data set itself has none."""
    objects = [(0, 0, 5, 5, 20, 20), (1, 0, 8, 8, 30, 30)]
    images = [("a.png", noise(48, 48, 3)), ("b.png", noise(48, 48, 3, seed=1))]
    name = write_data(tmp_path / "data", images, objects, keypoints=("head", "tail"))
    truth = json.loads((tmp_path / "data/data.json").read_text())["annotations"]
    folder = make_run(tmp_path / "run", name, [{**own, "score": 0.9} for own in truth])
    config = {"test": {"dataset": {"names": name}}, "evaluator": {"kpt_oks_sigmas": [0.05, 0.05]}}
    (folder / "config.yaml").write_text(json.dumps({"dataloader": config}))
    _, evaluated, note = evaluate_run(read_run(folder), 0.5)
    assert not note
    assert evaluated is not None
    assert evaluated.summary["tasks"]["keypoints"]["AP"] == pytest.approx(100)
