"""The pages of runs: one file that needs nothing beside it, and says what the evaluation says."""

import base64
import html.parser
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.cli.report import evaluate_run, write_comparison_page, write_run_page
from maskrcnn_ext.evaluation.bootstrap import compare as bootstrap
from maskrcnn_ext.report.run import read_run
from tests.helpers.run_folders import make_run, shapes_run

RESULTS = "inference/coco_instances_results.json"


@pytest.fixture
def run_folder(shapes, tmp_path):
    return shapes_run(tmp_path / "run", shapes)


class Page(html.parser.HTMLParser):
    """The addresses of a page, its tables as text, and its pictures."""

    def __init__(self, file):
        super().__init__()
        self.text = file.read_text()
        self.addresses, self.tables, self.images, self.tags = [], [], 0, []
        self._cell = False
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset") and value
        ]
        self.images += tag == "img"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.tables[-1][-1][-1] += data.strip()

    def table(self, *head):
        """The rows of the first table that begins with a head."""
        return next(rows[1:] for rows in self.tables if tuple(rows[0][: len(head)]) == head)

    def assert_alone(self):
        """Nothing is loaded, from here or elsewhere."""
        assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in self.addresses)
        assert "@import" not in self.text
        assert not re.search(r"https?://|url\(", self.text)
        assert not {"link", "iframe", "object"} & set(self.tags)


def test_the_page_is_whole_and_says_what_the_evaluation_says(run_folder, shapes):
    page = Page(write_run_page(run_folder, run_folder / "sub/report.html", title="A <run> & more"))
    page.assert_alone()
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
    # What the log of the run says.
    for figure in ("26:03:04", "415 ms", "500 ms", "2.0 GiB"):
        assert f"<b>{figure}</b>" in page.text
    assert f"The AP of masks is {found['AP']:.1f} here and 41.2 in the run" in page.text


def test_the_pictures_show_what_is_wrong_and_what_is_missed(run_folder, shapes):
    page = Page(write_run_page(run_folder, run_folder / "report.html"))
    data = json.loads(shapes.read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    first = data["annotations"][0]
    name = next(own["name"] for own in data["categories"] if own["id"] == first["category_id"])
    captions = re.findall(r"<figcaption[^>]*>([^<]*)</figcaption>", page.text)
    assert f"{names[data['annotations'][-1]['image_id']]}: disc 0.95: background" in captions
    assert f"{names[first['image_id']]}: {name} of {first['area']:,.0f} pixels" in captions
    assert len(captions) == 8 + 2, "four worst, four best, one wrong, one missed"
    assert page.images == 2 * len(captions)


def test_wrong_and_missed_are_orange_and_the_rest_is_blue(run_folder):
    _, evaluated, _ = evaluate_run(read_run(run_folder), 0.5)
    worst = evaluated.galleries("segm")["worst"]

    def colored(address, color):
        data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(int)
        return (np.abs(picture - color).max(axis=2) < 40).mean()

    orange, blue = (0, 140, 255), (233, 180, 86)
    (_, truth), (_, predicted) = next(own for own in worst if "1 missed" in own["caption"])["pictures"]
    assert colored(truth, orange) > 2 * colored(predicted, orange)
    assert colored(truth, blue) > 0


def test_a_run_before_its_first_evaluation(run_folder, capsys):
    lines = (run_folder / "metrics.json").read_text().splitlines()
    (run_folder / "metrics.json").write_text(lines[0] + "\n")
    (run_folder / RESULTS).unlink()
    page = Page(write_run_page(run_folder, run_folder / "report.html"))
    page.assert_alone()
    assert "no evaluation in this run" in page.text
    assert "coco_instances_results.json are missing" in page.text
    assert "note: " in capsys.readouterr().err
    assert page.images == 0


def test_without_predictions_the_logged_numbers_are_shown(run_folder):
    (run_folder / RESULTS).unlink()
    page = Page(write_run_page(run_folder, run_folder / "report.html"))
    assert page.table("", "AP")[0][:3] == ["masks", "41.2", "70.0"]
    assert page.table("class", "masks") == [["disc", "50.5", "\N{EN DASH}"]]
    assert ">nan<" not in page.text


@pytest.mark.parametrize("kept", ["metrics.json", "config.yaml", RESULTS])
def test_any_one_file_makes_a_page(run_folder, kept, tmp_path):
    other = tmp_path / "other"
    (other / kept).parent.mkdir(parents=True)
    shutil.copy(run_folder / kept, other / kept)
    page = Page(write_run_page(other, other / "report.html"))
    page.assert_alone()
    assert "No error analysis and no images" in page.text


def test_data_that_has_moved_is_said_so(run_folder):
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("annotations.json", "moved.json"))
    page = Page(write_run_page(run_folder, run_folder / "report.html"))
    assert "No error analysis and no images" in page.text
    assert "moved.json" in page.text


def test_images_that_are_gone_are_lines(shapes, tmp_path):
    shutil.copytree(shapes.parent, tmp_path / "data")
    moved = tmp_path / "data" / shapes.name
    folder = shapes_run(tmp_path / "run", moved)
    images = sorted((moved.parent / "images").iterdir())
    images[0].unlink()
    cv2.imwrite(str(images[1]), np.zeros((5, 5, 3), np.uint8))
    page = Page(write_run_page(folder, folder / "report.html"))
    assert f"no such file: {images[0]}" in page.text
    assert f"{images[1]} has 5 x 5 pixels, the annotations say 96 x 96" in page.text
    assert 0 < page.images < 20


def test_names_are_text(shapes, tmp_path):
    data = json.loads(shapes.read_text())
    data["categories"][0]["name"] = "<b>$x$ & 'y'"
    file = tmp_path / "named.json"
    file.write_text(json.dumps(data))
    found = [{**own, "score": 0.9} for own in data["annotations"]]
    folder = make_run(tmp_path / "run", f"coco:{file}@{shapes.parent / 'images'}", found)
    page = Page(write_run_page(folder, folder / "report.html"))
    assert "<b>$x$" not in page.text
    assert "<b>$x$ & 'y'" in [row[0] for row in page.table("class", "objects")]


def test_nothing_found_and_nothing_to_find(shapes, tmp_path):
    data = json.loads(shapes.read_text())
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({**data, "annotations": []}))
    some = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.9}]
    for name, file, found in (("a", shapes, []), ("b", empty, []), ("c", empty, some)):
        folder = make_run(tmp_path / name, f"coco:{file}@{shapes.parent / 'images'}", found)
        page = Page(write_run_page(folder, folder / "report.html"))
        page.assert_alone()
        assert ">nan<" not in page.text
        assert ">None<" not in page.text


def test_keypoints_alone(people, tmp_path):
    file = Path(people.removeprefix("coco:").partition("@")[0])
    annotations = json.loads(file.read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox", "keypoints")
    found = [{**{key: own[key] for key in keys}, "score": 0.9} for own in annotations[1:]]
    folder = make_run(tmp_path / "run", people, found, "keypoint_rcnn_r18_fpn_scratch.py")
    page = Page(write_run_page(folder, folder / "report.html"))
    page.assert_alone()
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
    page = Page(write_run_page(folder, folder / "report.html"))
    assert len(page.table("class", "objects")) == 85
    matrix = next(rows for rows in page.tables if rows[0][-1] == "background")
    assert len(matrix) == 1 + 20 + 2
    assert matrix[0][-2] == "65 others"
    assert sum(int(cell or 0) for row in matrix[1:] for cell in row[1:]) == len(data["annotations"])
    assert page.table("object", "found as")[0][1:3] == ["class 50", "1"]


def test_runs_side_by_side(run_folder, shapes, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    found = json.loads((other / RESULTS).read_text())
    (other / RESULTS).write_text(json.dumps(found[: len(found) // 2]))
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(
        config.replace("  lr: 0.002", "  lr: 0.004").replace("  seed: 1", "  seed: 1\n  extra: <i>")
    )
    page = Page(write_comparison_page([run_folder, other], tmp_path / "compare.html"))
    page.assert_alone()
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
    told = page.table("metric", "run", "other")[0]
    assert told == [
        "AP",
        *pair,
        *(f"{expected[key]:+.1f}" for key in ("difference", "low", "high")),
        "not distinguishable",
    ]
    assert page.text.count('class="c1"') > 0, "the second run's colour"


def test_runs_on_other_data_are_not_measured_against_each_other(run_folder, shapes, tmp_path):
    moved = tmp_path / "copy.json"
    shutil.copy(shapes, moved)
    other = make_run(tmp_path / "other", f"coco:{moved}@{shapes.parent / 'images'}", [])
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run_folder / "metrics.json", bare)
    page = Page(write_comparison_page([run_folder, other, bare], tmp_path / "compare.html", title="three"))
    assert "other was evaluated on coco:" in page.text
    assert "bare: No error analysis" in page.text
    assert "Are the differences real?" not in page.text
    assert page.table("run", "AP of masks")[2][1] == "41.2", "as its log has it"


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
