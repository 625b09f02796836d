"""`maskrcnn-ext merge` writes one data set that reads back, and mistakes are one line."""

import json

import pytest

from maskrcnn_ext import get_dataset_dicts
from maskrcnn_ext.cli import main


@pytest.fixture
def halves(shapes, tmp_path):
    """The shapes as two sets: half of the images each, and in the second one class less."""
    content = json.loads(shapes.read_text())
    names = []
    for part in (0, 1):
        images = content["images"][part::2]
        kept = {image["id"] for image in images}
        categories = content["categories"][: len(content["categories"]) - part]
        ids = {category["id"] for category in categories}
        annotations = [a for a in content["annotations"] if a["image_id"] in kept and a["category_id"] in ids]
        file = tmp_path / f"{part}.json"
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        names.append(f"coco:{file}@{shapes.parent / 'images'}")
    return names, content


def test_sets_that_label_different_classes_are_merged_and_read_back(halves, tmp_path, capsys):
    names, content = halves
    out = tmp_path / "out"
    assert main(["merge", *names, "-o", str(out), "--link"]) == 0
    printed, following = capsys.readouterr()
    assert "8 images" in printed
    assert "images that label only some of the classes: 4" in printed
    merged = get_dataset_dicts(following.split()[-1], filter_empty=False)
    classes = len(content["categories"])
    assert (
        sorted(len(one.get("labelled_classes", range(classes))) for one in merged) == [classes - 1] * 4 + [classes] * 4
    )
    written = json.loads((out / "annotations.json").read_text())
    assert len(written["categories"]) == classes
    assert sum("labelled_category_ids" in image for image in written["images"]) == 4


def test_a_map_joins_classes_and_only_the_json_is_written(halves, tmp_path, capsys):
    names, content = halves
    lines = "".join(f"  {category['name']}: thing\n" for category in content["categories"])
    (tmp_path / "map.yaml").write_text(f"map:\n{lines}")
    arguments = ["merge", *names, "--map", str(tmp_path / "map.yaml"), "-o", str(tmp_path / "out.json")]
    assert main(arguments) == 0
    printed, following = capsys.readouterr()
    assert "1 class: thing" in printed
    assert "label only some" not in printed
    assert len(get_dataset_dicts(following.split()[-1], filter_empty=False)) == 8
    assert main(arguments) == 2
    assert "exists: choose another DST" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_mistakes_are_one_line(halves, tmp_path, capsys):
    names, _ = halves
    (tmp_path / "map.yaml").write_text("map: {nothing: thing}\n")
    for arguments, message in [
        ([names[0], "-o", "out"], "merge needs two data sets or more"),
        ([*names, "-o", "out.json", "--link"], "--link needs images"),
        ([*names, "-o", "out", "--map", "gone.yaml"], "gone.yaml"),
        ([*names, "-o", "out", "--map", str(tmp_path / "map.yaml")], "`map` lacks the class"),
        ([names[0], "gone", "-o", "out"], "gone"),
    ]:
        out = [str(tmp_path / one) if one.startswith("out") else one for one in arguments]
        assert main(["merge", *out]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
