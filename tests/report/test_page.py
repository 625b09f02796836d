"""The page of a run: one file that needs no other, with the numbers of the evaluation."""

import json
import shutil
from pathlib import Path

import pytest

from maskrcnn_ext.cli.report import evaluate_run, write_run_page
from maskrcnn_ext.report.run import read_run
from tests.helpers.pages import ParsedPage
from tests.helpers.run_folders import make_run, shapes_run

RESULTS = "inference/coco_instances_results.json"


@pytest.fixture
def run_folder(shapes, tmp_path):
    return shapes_run(tmp_path / "run", shapes)


def test_the_page_is_complete_with_the_numbers_of_the_evaluation(run_folder, shapes):
    page = ParsedPage(write_run_page(run_folder, run_folder / "sub/report.html", title="A <run> & more"))
    page.assert_self_contained()
    assert "<title>A &lt;run&gt; &amp; more</title>" in page.text
    _, evaluated, note = evaluate_run(read_run(run_folder), 0.5)
    assert note == ""
    found = evaluated.summary["tasks"]["segm"]
    assert 90 < found["AP"] < 100, "one object is missed, one detection too many"
    assert f"<b>{found['AP']:.1f}</b>" in page.text
    assert [row[0] for row in page.table("", "AP")] == ["masks", "boxes"]
    assert page.table("", "AP")[0][1:5] == [f"{found[name]:.1f}" for name in ("AP", "AP50", "AP75", "AR")]
    assert page.table("", "0.50")[0][1:] == [f"{value:.1f}" for value in found["AP_by_iou"].values()]
    classes = page.table("class", "objects")
    assert [(row[0], row[1], row[2]) for row in classes] == [
        (row["class"], str(row["objects"]), f"{row['AP']:.1f}" if row["AP"] is not None else "\N{EN DASH}")
        for row in found["per_class"]
    ]
    matrix = page.table("", *found["confusion"]["labels"])
    assert [[int(cell or 0) for cell in row[1:]] for row in matrix] == found["confusion"]["counts"]
    assert f"F1 is best at {found['best']['score']:.2f}" in page.text
    assert f"(ECE) is {found['calibration']['ECE']:.3f}" in page.text
    places = [page.text.index(f'<h2 id="{name}">') for name in ("worst", "precision", "training", "images", "next")]
    assert places == sorted(places), "the worst images, then numbers and curves, then what to do"
    assert f"maskrcnn-ext predict {run_folder} IMAGES" in page.text
    # What the log of the run says.
    for figure in ("26:03:04", "415 ms", "500 ms", "2.0 GiB"):
        assert f"<b>{figure}</b>" in page.text
    assert f"The AP of masks is {found['AP']:.1f} here and 41.2 in the run" in page.text


def test_a_seeds_folder_is_named_with_its_model(run_folder, tmp_path):
    seed = tmp_path / "stock/1"
    shutil.copytree(run_folder, seed)
    assert "<title>stock/1</title>" in write_run_page(seed, tmp_path / "report.html").read_text()


def test_a_run_before_its_first_evaluation(run_folder, capsys):
    lines = (run_folder / "metrics.json").read_text().splitlines()
    (run_folder / "metrics.json").write_text(lines[0] + "\n")
    (run_folder / RESULTS).unlink()
    page = ParsedPage(write_run_page(run_folder, run_folder / "report.html"))
    page.assert_self_contained()
    assert "no evaluation in this run" in page.text
    assert "coco_instances_results.json are missing" in page.text
    assert "note: " in capsys.readouterr().err
    assert page.images == 0


def test_without_predictions_the_logged_numbers_are_shown(run_folder):
    (run_folder / RESULTS).unlink()
    page = ParsedPage(write_run_page(run_folder, run_folder / "report.html"))
    assert page.table("", "AP")[0][:3] == ["masks", "41.2", "70.0"]
    assert page.table("class", "masks") == [["disc", "50.5", "\N{EN DASH}"]]
    assert ">nan<" not in page.text


@pytest.mark.parametrize("kept", ["metrics.json", "config.yaml", RESULTS])
def test_any_one_file_makes_a_page(run_folder, kept, tmp_path):
    other = tmp_path / "other"
    (other / kept).parent.mkdir(parents=True)
    shutil.copy(run_folder / kept, other / kept)
    page = ParsedPage(write_run_page(other, other / "report.html"))
    page.assert_self_contained()
    assert "No error analysis and no images" in page.text


def test_a_missing_dataset_is_noted_on_the_page(run_folder):
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("annotations.json", "moved.json"))
    page = ParsedPage(write_run_page(run_folder, run_folder / "report.html"))
    assert "No error analysis and no images" in page.text
    assert "moved.json" in page.text


def test_names_are_text(shapes, tmp_path):
    data = json.loads(shapes.read_text())
    data["categories"][0]["name"] = "<b>$x$ & 'y'"
    file = tmp_path / "named.json"
    file.write_text(json.dumps(data))
    found = [{**own, "score": 0.9} for own in data["annotations"]]
    folder = make_run(tmp_path / "run", f"coco:{file}@{shapes.parent / 'images'}", found)
    page = ParsedPage(write_run_page(folder, folder / "report.html"))
    assert "<b>$x$" not in page.text
    assert "<b>$x$ & 'y'" in [row[0] for row in page.table("class", "objects")]


def test_nothing_found_and_nothing_to_find(shapes, tmp_path):
    data = json.loads(shapes.read_text())
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({**data, "annotations": []}))
    some = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.9}]
    for name, file, found in (("a", shapes, []), ("b", empty, []), ("c", empty, some)):
        folder = make_run(tmp_path / name, f"coco:{file}@{shapes.parent / 'images'}", found)
        page = ParsedPage(write_run_page(folder, folder / "report.html"))
        page.assert_self_contained()
        assert ">nan<" not in page.text
        assert ">None<" not in page.text


def test_keypoints_alone(people, tmp_path):
    file = Path(people.removeprefix("coco:").partition("@")[0])
    annotations = json.loads(file.read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox", "keypoints")
    found = [{**{key: own[key] for key in keys}, "score": 0.9} for own in annotations[1:]]
    folder = make_run(tmp_path / "run", people, found, "keypoint_rcnn_r18_fpn_scratch.py")
    page = ParsedPage(write_run_page(folder, folder / "report.html"))
    page.assert_self_contained()
    assert [row[0] for row in page.table("", "AP")] == ["keypoints", "boxes"]
    assert "Judged by keypoints at IoU 0.5" in page.text
    assert page.images > 0


def test_many_classes_stay_readable(shapes, tmp_path):
    data = json.loads(shapes.read_text())
    data["categories"] += [{"id": 100 + i, "name": f"class {i}"} for i in range(80)]
    file = tmp_path / "many.json"
    file.write_text(json.dumps(data))
    found = [{**own, "score": 0.9} for own in data["annotations"]]
    found[0]["category_id"] = 150
    folder = make_run(tmp_path / "run", f"coco:{file}@{shapes.parent / 'images'}", found)
    page = ParsedPage(write_run_page(folder, folder / "report.html"))
    assert len(page.table("class", "objects")) == 85
    matrix = next(rows for rows in page.tables if rows[0][-1] == "background")
    assert len(matrix) == 1 + 20 + 2
    assert matrix[0][-2] == "65 others"
    assert sum(int(cell or 0) for row in matrix[1:] for cell in row[1:]) == len(data["annotations"])
    assert page.table("object", "found as")[0][1:3] == ["class 50", "1"]
