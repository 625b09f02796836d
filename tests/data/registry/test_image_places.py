"""The folder of the images that a file of annotations names is found beside it or below."""

import pytest

from maskrcnn_ext.data.registry.image_places import folder_of, images_folder


@pytest.mark.parametrize(
    ("file", "names", "files", "expected"),
    [
        ("a.json", ["1.png"], ["1.png"], "."),
        ("a.json", ["1.png"], ["images/1.png"], "images"),
        ("annotations/instances_val.json", ["1.png"], ["train/1.png", "val/1.png"], "val"),
        ("annotations/instances_val.json", ["1.png"], ["images/train/1.png", "images/val/1.png"], "images/val"),
        # The first folder with more than half of the images, else the one with most.
        ("a.json", ["1.png", "2.png", "3.png"], ["1.png", "images/1.png", "images/2.png"], "images"),
        ("a.json", ["1.png", "2.png", "3.png"], ["x/1.png", "y/z/2.png", "y/z/3.png"], "."),
        ("a.json", ["1.png", "2.png", "3.png"], ["x/1/1.png", "x/2/2.png", "x/3/3.png"], "x"),
        # Names as another machine wrote them.
        ("a.json", ["D:\\old\\1.PNG"], ["images/1.png"], "images"),
        ("a.json", ["old/1.png"], ["x/old/1.png", "y/1.png"], "x"),
        # None is found.
        ("annotations/a.json", ["1.png"], [], "annotations"),
        ("a.json", [None, 5], ["1.png"], "."),
        ("a.json", [], ["images/1.png"], "."),
    ],
)
def test_the_folder_with_most_of_the_images_is_found(tmp_path, file, names, files, expected):
    for name in (file, *files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert folder_of(tmp_path / file, names) == tmp_path / expected


def test_records_of_images_that_are_broken_do_not_count(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").touch()
    assert images_folder(tmp_path / "a.json", [5, {"id": 1}, {"file_name": "1.png"}]) == tmp_path / "images"
