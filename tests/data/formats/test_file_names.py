"""Files of a folder, and names in annotation files that lead elsewhere."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.file_names import list_files, list_images, pair_files, path_below


def test_two_images_of_one_name_are_named(tmp_path):
    for name in ("a.png", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"a\.jpg and a\.png have the same name"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="none: no such folder"):
        list_images(tmp_path / "none")


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg", "..\\a.jpg", "C:\\a.jpg"])
def test_a_name_does_not_lead_out_of_its_folder(tmp_path, name):
    with pytest.raises(InputError, match="leads out of"):
        path_below(tmp_path, name, "here")
    assert path_below(tmp_path, "b\\c/a.jpg", "here") == tmp_path / "b" / "c" / "a.jpg"


@pytest.mark.parametrize("name", ["", ".", "/", "a\0b", "x" * 300, None, 3, ["a.jpg"]])
def test_values_that_are_not_file_names_are_errors(tmp_path, name):
    with pytest.raises(InputError, match=r"^here: .* is not a file name"):
        path_below(tmp_path, name, "here")


def test_hidden_files_are_no_data(tmp_path):
    for name in ("b.png", "a.png", "._a.png", ".a.png.swp"):
        (tmp_path / name).touch()
    assert [path.name for path in list_files(tmp_path, "*.png")] == ["a.png", "b.png"]
    assert list(list_images(tmp_path)) == ["a", "b"]
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png").touch()
    assert [path.name for path in list_files(tmp_path, "**/*")] == ["a.png", "b.png"]


def test_a_name_is_measured_in_bytes(tmp_path):
    with pytest.raises(InputError, match="is not a file name"):
        path_below(tmp_path, "\u6c14" * 100, "here")


@pytest.mark.parametrize("name", ["D:\\me\\b\\a.jpg", "/home/me/b/a.jpg", "../../me/b/a.jpg", "/c/a.jpg"])
def test_a_name_of_another_machine_is_found_by_its_last_parts(tmp_path, name):
    for place in ("a.jpg", "b/a.jpg"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    expected = tmp_path / ("a.jpg" if "/c/" in name else "b/a.jpg")
    assert path_below(tmp_path, name, "here") == expected


def test_nnunets_first_channel_has_the_labels_of_its_case(tmp_path):
    for name in ("images/a_0000.nii", "images/b.nii", "labels/a.nii", "labels/b.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pairs = pair_files(tmp_path / "images", tmp_path / "labels", (".nii",), (".nii",))
    assert [(image.stem, labels.stem) for image, labels in pairs] == [("a_0000", "a"), ("b", "b")]
    (tmp_path / "images/a_0001.nii").touch()
    with pytest.raises(InputError, match=r"a_0001\.nii: has no labels"):
        pair_files(tmp_path / "images", tmp_path / "labels", (".nii",), (".nii",))
