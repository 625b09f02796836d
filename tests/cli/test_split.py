"""``maskrcnn-ext split`` writes COCO files that can be read, and never overwrites unasked."""

import json

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.formats.coco import read_coco


def test_the_command_writes_files_that_can_be_read(shapes, tmp_path, capsys):
    images = shapes.parent / "images"
    target = tmp_path / "parts"
    command = ["split", f"coco:{shapes}@{images}", str(target), "--val", "0.25", "--test", "0.25", "--stratify"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    whole = {record.file_name: record for record in read_coco(shapes, images).images}
    seen = []
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        assert f"coco:{target / part}.json@{images}" in printed
        data = read_coco(target / f"{part}.json", images)
        assert len(data.images) == count
        for record in data.images:
            seen.append(record.file_name)
            ours, theirs = record.annotations, whole[record.file_name].annotations
            assert [(a.category, a.box, a.segmentation) for a in ours] == [
                (a.category, a.box, a.segmentation) for a in theirs
            ]
    assert sorted(seen) == sorted(whole)
    first = {file.name: file.read_bytes() for file in target.iterdir()}

    content = json.loads(shapes.read_text())
    content["images"] = [{**image, "id": 100 - image["id"]} for image in content["images"]]
    content["annotations"] = [{**a, "image_id": 100 - a["image_id"]} for a in content["annotations"]]
    turned = tmp_path / "turned.json"
    turned.write_text(json.dumps(content))
    assert main(["split", f"coco:{turned}@{images}", *command[2:], "--overwrite"]) == 0
    assert {file.name: file.read_bytes() for file in target.iterdir()} == first, "the order of the images is no matter"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val", "1.2"], "--val 1.2 is not a share from 0 to 1"),
        (["--val", "0.5", "--test", "0.5"], "leave nothing to train on"),
        (["--val", "0.2", "--group-regex", "a"], "--group-regex needs --by group"),
        (["--val", "0.01"], "val gets none of 8 groups"),
        (["--val", "0.2", "--by", "group"], "val gets none of 1 group"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(shapes, tmp_path, options, message, capsys):
    target = tmp_path / "parts"
    assert main(["split", f"coco:{shapes}@{shapes.parent / 'images'}", str(target), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_not_overwritten(shapes, tmp_path, capsys):
    assert main(["split", f"coco:{shapes}@{shapes.parent / 'images'}", str(tmp_path), "--val", "0.25"]) == 2
    assert "exists" in capsys.readouterr().err
