"""``maskrcnn-ext convert`` reports mistakes in one line and leaves nothing half written."""

import json
import os
import shlex
import signal
import threading

import pytest
from PIL import Image

from maskrcnn_ext import get_dataset_dicts
from maskrcnn_ext.cli import main
from maskrcnn_ext.cli.convert import _FORMATS
from maskrcnn_ext.data.registry.catalog import load_dataset


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


def test_the_split_that_is_read_and_the_others_are_printed(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: [images]\nnames: [cat]\n")
    for name, chosen, other in (("data.yaml", "train", "val"), ("data.yaml@val", "val", "train")):
        assert main(["convert", f"yolo:{tmp_path / name}", str(tmp_path / chosen), "--to", "coco"]) == 0
        note = f"split {chosen} of {tmp_path}/data.yaml; it also has {other}, such as yolo:{tmp_path}/data.yaml@{other}"
        printed = capsys.readouterr().out
        assert printed.startswith(note)
        assert f"{tmp_path / chosen}: 1 image, 1 object read, 1 class\n" in printed


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize(
    "command", [["convert", "--to", "coco"], ["split", "--val", "0.5"]], ids=lambda words: words[0]
)
def test_a_signal_stops_it_in_one_line_and_leaves_nothing(command, name, tmp_path, capsys):
    """The annotations are a pipe, so the command waits in the middle of its work until the signal comes."""
    os.mkfifo(tmp_path / "a.json")

    def stop():
        with (tmp_path / "a.json").open("wb"):  # waits for the reader
            signal.pthread_kill(threading.main_thread().ident, name)
            stopped.wait()

    stopped = threading.Event()
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        status = main([command[0], f"coco:{tmp_path / 'a.json'}@{tmp_path}", str(tmp_path / "out"), *command[1:]])
    finally:
        stopped.set()
        thread.join()
    assert status == 75
    assert capsys.readouterr().err == f"maskrcnn-ext {command[0]}: stopped by {name.name}; run the same command again\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("format", _FORMATS)
def test_the_next_command_reads_what_was_written(format, shapes, tmp_path, capsys):
    target = tmp_path / "written"
    assert main(["convert", f"coco:{shapes}@{shapes.parent / 'images'}", str(target), "--to", format]) == 0
    line = capsys.readouterr().err.splitlines()[-2]
    command, data = shlex.split(line)[1:]
    assert command == "check-data"
    assert sum(len(record.annotations) for record in load_dataset(data).images) == len(
        json.loads(shapes.read_text())["annotations"]
    )


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "label-image"])
def test_an_image_whose_name_is_not_utf8(format, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.png")  # of an archive made on another system
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / name)
    polygon = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 1, 4, 4],
        "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]],
    }
    images = [{"id": 1, "file_name": name, "height": 10, "width": 20}]
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": [polygon]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = f"coco:{tmp_path / 'a.json'}@{tmp_path / 'images'}"
    assert main(["convert", source, str(tmp_path / "out"), "--to", format]) == 0
    assert any(path.name == "caf_.png" for path in (tmp_path / "out").rglob("*.png"))


def test_long_names_of_images_and_classes(tmp_path, capsys):
    """A name of 250 bytes and the suffix of another format still fit; the class is written as it is."""
    stem, category = "n" * 246, "c" * 10_000
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / f"{stem}.png")
    content = {
        "images": [{"id": 1, "file_name": f"{stem}.png", "height": 10, "width": 20}],
        "categories": [{"id": 1, "name": category}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = f"coco:{tmp_path / 'a.json'}@{tmp_path / 'images'}"
    for format in ("coco", "yolo", "labelme", "label-image"):
        target = tmp_path / format
        assert main(["convert", source, str(target), "--to", format]) == 0
        again = {
            "coco": f"coco:{target}/annotations.json@{target}/images",
            "yolo": f"yolo:{target}/data.yaml",
            "labelme": f"labelme:{target}",
            "label-image": f"label_image:{target}/labels@{target}/images",
        }[format]
        (record,) = get_dataset_dicts(again)
        assert len(record["annotations"]) == 1
    assert "warning" not in capsys.readouterr().err
