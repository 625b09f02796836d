"""``maskrcnn-ext report`` writes the page of one run or of several; mistakes are one line."""

import pytest

from maskrcnn_ext.cli import main
from tests.helpers.run_folders import shapes_run

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
