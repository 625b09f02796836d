"""``maskrcnn-ext convert`` reports mistakes in one line and leaves nothing half written."""

import json

from PIL import Image

from maskrcnn_ext.cli import main


def test_mistakes_are_one_line_and_leave_nothing(shapes, tmp_path, capsys):
    source = f"coco:{shapes}@{shapes.parent / 'images'}"
    there = tmp_path / "there"
    there.mkdir()
    broken = tmp_path / "broken.json"
    content = json.loads(shapes.read_text())
    content["images"][5]["file_name"] = "gone.jpg"
    broken.write_text(json.dumps(content))
    before = sorted(tmp_path.iterdir())
    commands = {
        (source, str(there), "--to", "coco"): "exists: choose another DST, or add --overwrite",
        (source, str(tmp_path / "a.json"), "--to", "coco", "--link"): "--link needs images",
        ("nuclei_trian", str(tmp_path / "a"), "--to", "yolo"): "did you mean nuclei_train",
        (f"coco:{broken}@{shapes.parent / 'images'}", str(tmp_path / "a"), "--to", "yolo"): "no file",
        (source, str(shapes.parent), "--to", "coco", "--overwrite"): "cannot be overwritten: it contains",
    }
    for command, message in commands.items():
        assert main(["convert", *command]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert sorted(tmp_path.iterdir()) == before
    assert shapes.is_file()


def test_overwriting_replaces_all_of_it(shapes, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").touch()
    command = ["convert", f"coco:{shapes}@{shapes.parent / 'images'}", str(target), "--to", "labelme", "--overwrite"]
    assert main(command) == 0
    assert not (target / "old.txt").exists()
    assert len(list(target.glob("*.json"))) == 8
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_cannot_be_written_is_named(shapes, tmp_path, capsys):
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out.json"):
        assert main(["convert", f"coco:{shapes}@{shapes.parent / 'images'}", str(target), "--to", "coco"]) == 2
        error = capsys.readouterr().err
        assert "cannot write" in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_split_that_is_read_and_the_others_are_said(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: [images]\nnames: [cat]\n")
    for name, chosen, other in (("data.yaml", "train", "val"), ("data.yaml@val", "val", "train")):
        assert main(["convert", f"yolo:{tmp_path / name}", str(tmp_path / chosen), "--to", "coco"]) == 0
        note = f"split {chosen} of {tmp_path}/data.yaml; it also has {other}, such as yolo:YAML@{other}"
        assert capsys.readouterr().out.startswith(note)
