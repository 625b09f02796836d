"""`maskrcnn-ext find-label-errors`: lists, page and files for label tools of a run's own predictions, and mistakes are one line."""

import csv
import json

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.registry.catalog import load_dataset


@pytest.fixture
def labelled(shapes, tmp_path):
    """The shapes with one object deleted, and predictions that are the true ones."""
    content = json.loads(shapes.read_text())
    truth = content["annotations"]
    results = [
        {**{key: one[key] for key in ("image_id", "category_id", "bbox", "segmentation")}, "score": 0.9}
        for one in truth
    ]
    content["annotations"] = truth[:4] + truth[5:]
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(content))
    run = tmp_path / "run"
    (run / "inference").mkdir(parents=True)
    (run / "inference/coco_instances_results.json").write_text(json.dumps(results))
    return run, f"coco:{file}@{shapes.parent / 'images'}", truth[4]


def test_the_deleted_object_is_listed(labelled, tmp_path, capsys):
    run, data, deleted = labelled
    out = tmp_path / "out"
    arguments = ["find-label-errors", str(run), data, "-o", str(out), "--save", "coco,cvat,labelstudio"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "1 missing" in printed
    (row,) = [row for row in csv.DictReader((out / "label_errors.csv").open()) if row["kind"] == "missing"]
    assert row["rank"] == "1"
    x, y, width, height = deleted["bbox"]
    assert [float(row[key]) for key in ("x0", "y0", "x1", "y1")] == pytest.approx(
        [x, y, x + width, y + height], abs=0.01
    )
    assert json.loads((out / "label_errors.json").read_text())[0]["title"] == row["title"]
    assert row["title"].startswith("missing ")
    assert (out / "index.html").read_text().count("<figure>") >= 1
    images = data.partition("@")[2]
    for kind, name in [
        ("coco", f"coco:{out}/coco/annotations.json@{images}"),
        ("cvat", f"cvat:{out}/cvat/annotations.xml@{images}"),
    ]:
        listed = load_dataset(name)
        assert row["title"] in listed.classes, kind
        assert len(listed.images[0].annotations) >= 1
    assert (out / "label-studio/tasks.json").is_file()
    assert "warning" not in capsys.readouterr().err
    # Another name of the same images.
    config = {
        "dataloader": {"train": {"dataset": {"names": [f"{data}@only:disc,rectangle,triangle", "coco:gone.json@gone"]}}}
    }
    (run / "config.yaml").write_text(json.dumps(config))
    assert main(arguments) == 0
    assert "was trained on 8 of 8 images" in capsys.readouterr().err
    results = run / "inference/coco_instances_results.json"
    assert main(["find-label-errors", str(results), data, "-o", str(out), "--save", "none"]) == 0


def test_mistakes_are_one_line(labelled, tmp_path, capsys):
    run, data, _ = labelled
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/metrics.json").write_text("")
    for arguments, message in [
        ([run, data, "--count", "0"], "--count 0: expected at least 1"),
        ([run, data, "--save", "word"], "--save word: expected some of labelme"),
        ([tmp_path / "gone", data], "is not the folder of a run"),
        ([tmp_path / "empty", data], "has no predictions: maskrcnn-ext predict"),
        ([run, "gone"], "gone"),
    ]:
        assert main(["find-label-errors", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
