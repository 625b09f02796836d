"""Slices: each is measured as if its images were the whole data set, and a wrong column is one line."""

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.slices import evaluate_slices, image_slices
from maskrcnn_ext.evaluation.summary import evaluate
from maskrcnn_ext.evaluation.truth import load_truth
from tests.helpers.result_files import result_files  # noqa: F401
from tests.helpers.scenes import random_scene

SITES = ["north", "south", None]


@pytest.fixture(scope="module")
def scene():
    truth, results = random_scene(3, images=9)
    for number, image in enumerate(truth["images"]):
        if SITES[number % 3]:
            image["site"] = SITES[number % 3]
    return truth, results


def test_a_slice_is_measured_like_a_separate_data_set(scene):
    truth, results = scene
    rows = evaluate_slices(truth, results, "site", resamples=20, score_threshold=0.3)
    assert [(row["task"], row["slice"]) for row in rows] == [
        (task, name) for task in ("bbox", "segm") for name in ("(none)", "north", "south")
    ]
    ids = [image["id"] for image in truth["images"] if image.get("site") == "south"]
    alone = {
        key: [own for own in truth[key] if own.get("image_id", own["id"]) in ids] for key in ("images", "annotations")
    }
    alone["categories"] = truth["categories"]
    expected = evaluate(alone, [own for own in results if own["image_id"] in ids], score_threshold=0.3)
    south = rows[2]
    assert south["images"] == 3
    assert south["objects"] == expected["data"]["objects"]
    for key in ("AP", "AP50", "AR"):
        assert south[key] == expected["tasks"]["bbox"][key]
    assert south["F1"] == expected["tasks"]["bbox"]["at_threshold"]["F1"]
    assert south["low"] <= south["AP"] <= south["high"]
    assert sum(row["objects"] for row in rows if row["task"] == "bbox") == evaluate(truth, results)["data"]["objects"]


def test_the_column_of_a_csv_file(scene, tmp_path):
    truth = load_truth(scene[0])
    by_name, by_id = tmp_path / "a.csv", tmp_path / "b.csv"
    by_name.write_text(
        "file_name,time\n" + "".join(f"photos/{i}.png,{'day' if i < 5 else 'night'}\n" for i in range(1, 8))
    )
    by_name.write_text(by_name.read_text().replace("photos/", ""))
    by_id.write_text("image_id,time\n" + "".join(f"{i},{'day' if i < 5 else 'night'}\n" for i in range(1, 8)))
    for file in (by_name, by_id):
        slices = image_slices(truth, f"{file}:time")
        assert {name: len(images) for name, images in slices.items()} == {"(none)": 2, "day": 4, "night": 3}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("sit", "no `sit`: did you mean"),
        ("weather", "no `weather`: they have .*site"),
        ("no.csv:site", "no.csv: cannot be read"),
        ("wrong.csv:day", "no column `day`: its columns are name, site"),
        ("wrong.csv:site", "no column `file_name` or `image_id`"),
        ("other.csv:site", "no `file_name` is one of"),
    ],
)
def test_a_wrong_column_is_one_line(scene, tmp_path, monkeypatch, column, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.csv").write_text("name,site\n1.png,a\n")
    (tmp_path / "other.csv").write_text("file_name,site\nanother.png,a\n")
    with pytest.raises(InputError, match=message) as caught:
        image_slices(load_truth(scene[0]), column)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no `file_name` is one of .*, such as None"):
        image_slices(load_truth({**scene[0], "images": [], "annotations": []}), "other.csv:site")


def test_a_column_of_names_is_no_slice():
    truth, _ = random_scene(0, images=101)
    with pytest.raises(InputError, match="file_name has 101 values in 101 images"):
        image_slices(load_truth(truth), "file_name")


def test_the_command_prints_and_writes_them(result_files, shapes, capsys, tmp_path):
    options = ["--slice-by", "width", "-o", str(tmp_path)]
    assert main(["evaluate", str(result_files / "good.json"), str(shapes), *options]) == 0
    printed = capsys.readouterr().out
    assert "By width, AP with its 95 % interval:" in printed
    assert "100.00 (100.0 to 100.0)" in printed
    lines = (tmp_path / "slices.csv").read_text().splitlines()
    assert lines[0] == "task,slice,images,objects,AP,low,high,AP50,AR,precision,recall,F1"
    assert lines[1].startswith("bbox,96,8,")
