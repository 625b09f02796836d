"""The page that compares runs: their metrics side by side, and differences only for equal data."""

import json
import re
import shutil

import pytest

from maskrcnn_ext.cli.report import evaluate_run, write_comparison_page
from maskrcnn_ext.evaluation.bootstrap import compare as bootstrap
from maskrcnn_ext.report.run import read_run
from tests.helpers.pages import ParsedPage
from tests.helpers.run_folders import make_run, shapes_run

RESULTS = "inference/coco_instances_results.json"


@pytest.fixture
def run_folder(shapes, tmp_path):
    return shapes_run(tmp_path / "run", shapes)


def test_runs_side_by_side(run_folder, shapes, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    found = json.loads((other / RESULTS).read_text())
    (other / RESULTS).write_text(json.dumps(found[: len(found) // 2]))
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(
        config.replace("  lr: 0.002", "  lr: 0.004").replace("  seed: 1", "  seed: 1\n  extra: <i>")
    )
    page = ParsedPage(write_comparison_page([run_folder, other], tmp_path / "compare.html"))
    page.assert_self_contained()
    assert "<title>run and other</title>" in page.text
    truth, first, _ = evaluate_run(read_run(run_folder), 0.5)
    _, second, _ = evaluate_run(read_run(other), 0.5)
    pair = [f"{own.summary['tasks']['segm']['AP']:.1f}" for own in (first, second)]
    assert [row[:2] for row in page.table("run", "AP of masks")] == [["run", pair[0]], ["other", pair[1]]]
    assert page.table("in percent", "run", "other")[0] == ["AP", *pair]
    assert len(page.table("class", "run", "other")) == 5
    assert page.table("key", "run", "other") == [["optimizer.lr", "0.002", "0.004"]]
    assert ["train.extra", "\N{EN DASH}", "<i>"] in [row for rows in page.tables for row in rows]
    expected = bootstrap(truth, first.results, second.results, task="segm", resamples=500)["metrics"][0]
    row = page.table("metric", "run", "other")[0]
    assert row == [
        "AP",
        *pair,
        *(f"{expected[key]:+.1f}" for key in ("difference", "low", "high")),
        "cannot be decided: fewer than 10 images",
    ]
    assert page.text.count('class="c1"') > 0, "the second run's colour"
    assert "Whether other is better than run cannot be decided: its AP of masks is" in page.text
    titles = re.findall(r"<img[^>]*>([^<]*)</span>", page.text)
    assert page.images == len(titles) == 6 * 3, "truth and both predictions of six images"
    assert titles[:2] == ["truth", "run: quality 1.00"], "images without prediction of the other run differ most"
    assert titles[2] == "other: quality 0.00"


def test_runs_of_different_lengths_are_noted(run_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    longer = {"iteration": 4999, "total_loss": 0.1}
    with (other / "metrics.json").open("a") as file:
        file.write(json.dumps(longer) + "\n")
    page = ParsedPage(write_comparison_page([run_folder, other], tmp_path / "compare.html"))
    assert f"(run {read_run(run_folder).iterations:,}, other 5,000): a difference may be due to that" in page.text


def test_runs_on_other_data_are_not_measured_against_each_other(run_folder, shapes, tmp_path):
    moved = tmp_path / "copy.json"
    shutil.copy(shapes, moved)
    other = make_run(tmp_path / "other", f"coco:{moved}@{shapes.parent / 'images'}", [])
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run_folder / "metrics.json", bare)
    page = ParsedPage(write_comparison_page([run_folder, other, bare], tmp_path / "compare.html", title="three"))
    assert "other was evaluated on coco:" in page.text
    assert "bare: No error analysis" in page.text
    assert "Are the differences real?" not in page.text
    assert page.table("run", "AP of masks")[2][1] == "41.2", "as its log has it"
