"""Items to predict: files of every kind of input, in natural order, with unique names."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.inference.sources import find_inputs, natural_sort_key

NAMES = ["b/deep/a", "b/img1", "img1", "img2", "img10"]


@pytest.fixture
def folder(tmp_path):
    for name in ("img10.png", "img2.png", "img1.PNG", "b/img1.jpg", "b/deep/a.tif", ".hidden/x.png", "._img1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def names(inputs):
    return [item.name for item in inputs.items]


def test_a_folder_in_natural_order_without_hidden_files(folder):
    inputs = find_inputs([str(folder)])
    assert names(inputs) == NAMES
    assert [item.image_id for item in inputs.items] == [1, 2, 3, 4, 5]
    assert inputs.items[0].image == {"file_name": str(folder / "b/deep/a.tif")}
    assert inputs.data is None


def test_outputs_of_an_earlier_run_are_no_input(folder):
    (folder / "out/overlays").mkdir(parents=True)
    shutil.copy(folder / "img2.png", folder / "out/overlays")
    assert "out/overlays/img2" in names(find_inputs([str(folder)]))
    assert names(find_inputs([str(folder)], outputs=folder / "out")) == NAMES


def test_globs_files_and_stdin_keep_their_order_and_no_image_is_twice(folder, monkeypatch):
    monkeypatch.chdir(folder)
    inputs = find_inputs(["img2.png", "**/*.jpg", "img*.png", "-"], stdin=["b/deep/a.tif\n", "\n", "gone.png\r\n"])
    assert [item.file_name for item in inputs.items] == [
        "img2.png",
        str(Path("b/img1.jpg")),
        "img10.png",
        "b/deep/a.tif",
        "gone.png",
    ]


def test_names_are_unique_on_any_file_system(tmp_path):
    files = []
    for name in ("a.png", "a.jpg", "A.bmp", "x/b.png", "y/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        files.append(str(tmp_path / name))
    assert names(find_inputs(files)) == ["a.png", "a.jpg", "A.bmp", "x/b", "y/b"]


def test_a_file_that_changes_is_another_item(folder):
    key = find_inputs([str(folder / "img2.png")]).items[0].key
    assert find_inputs([str(folder / "img2.png")]).items[0].key == key
    with (folder / "img2.png").open("ab") as stream:
        stream.write(b" ")
    assert find_inputs([str(folder / "img2.png")]).items[0].key != key


def test_a_data_set_keeps_its_ids_and_windows(shapes):
    spec = f"coco:{shapes}@{shapes.parent / 'images'}"
    inputs = find_inputs([spec])
    assert inputs.data == spec
    assert [item.image_id for item in inputs.items] == list(range(1, 9))
    assert set(inputs.items[0].image) == {"file_name"}
    with pytest.raises(InputError, match="predict it in a run by itself"):
        find_inputs([str(shapes.parent / "images"), spec])


def test_slices_of_one_file_are_separate_items(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for name in ("scan.nii.gz", "labels.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.ones((8, 6, 3), np.int16), np.eye(4)), tmp_path / name)
    inputs = find_inputs([f"nifti:{tmp_path / 'scan.nii.gz'}@{tmp_path / 'labels.nii.gz'}"])
    assert len({item.key for item in inputs.items}) == len({item.name for item in inputs.items}) == 3
    assert [item.image["slice"] for item in inputs.items] == [0, 1, 2]


def test_videos_and_cameras_are_distinguished(folder):
    (folder / "a.MP4").write_bytes(b"")
    inputs = find_inputs([str(folder / "a.MP4"), "camera:2", str(folder / "img2.png")])
    assert inputs.videos == [str(folder / "a.MP4"), 2]
    assert names(inputs) == ["img2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "an INPUT is empty: name a file"),
        ("gone.png", "gone.png: no such file or folder, and no data set 'gone.png'"),
        ("no*.png", "no file matches"),
        ("empty", "no image below it"),
        ("-", "one path a line"),
        ("coco:gone.json@x", "no such file or folder: "),
    ],
)
def test_an_unknown_source_is_reported(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message.replace("*", r"\*")) as caught:
        find_inputs([given])
    assert "\n" not in str(caught.value)


def test_natural_order():
    files = ["f10", "f9", "F1", "f1b", "10", "9", "a", ""]
    assert sorted(files, key=natural_sort_key) == ["", "9", "10", "a", "F1", "f1b", "f9", "f10"]


def test_every_image_that_pillow_reads_is_found_and_others_are_counted(tmp_path, caplog):
    for suffix in ("jfif", "avif", "jp2", "gif", "pgm", "ppm", "tga", "bmp", "webp", "JPE"):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{suffix}.{suffix}")
    for name in ("a.heic", "b.heic", "c.txt", "README"):
        (tmp_path / name).touch()
    with caplog.at_level("WARNING"):
        found = find_inputs([str(tmp_path)]).items
    assert len(found) == 10
    for item in found:
        assert read_pixels(item.image, "BGR").shape == (6, 8, 3)
    assert "2 .heic, 1 .txt, 1 without a suffix: not read as images" in caplog.text
