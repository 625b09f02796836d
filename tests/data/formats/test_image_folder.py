"""Images are found by the last parts of their paths, in any case and without suffix, or by a name that only one of them has."""

from pathlib import PureWindowsPath

import pytest

from maskrcnn_ext.data.formats.image_folder import ImageFolder


@pytest.fixture
def folder(tmp_path):
    for name in ("train/a.jpg", "train/B.JPG", "c.png", "d.png", "D.png", "e.txt", "x/f.jpg", "y/f.jpg", "y/z/g.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return ImageFolder(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/a.jpg", "train/a.jpg"),
        ("C:\\x\\Train\\A.jpg", "train/a.jpg"),
        ("../old/train/b.jpg", "train/B.JPG"),
        ("train/b", "train/B.JPG"),
        ("images/C.PNG", "c.png"),
        ("d.png", "d.png"),
        ("d.PNG", None),
        ("e", None),
        ("a.jpg", "train/a.jpg"),
        ("2024/A.jpg", "train/a.jpg"),
        ("f.jpg", None),
        ("y/f.jpg", "y/f.jpg"),
        ("g.jpg", "y/z/g.tif"),
        ("c.jpg", "c.png"),
        ("f.png", None),
        ("h.jpg", None),
    ],
)
def test_the_closest_file_is_found(folder, name, expected):
    assert folder.find(PureWindowsPath(name)) == (expected and folder.folder / expected)


def test_existing_files_are_known(folder):
    assert folder.has(str(folder.folder / "c.png"))
    assert not folder.has(str(folder.folder / "none/c.png"))
