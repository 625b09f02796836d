"""File names and sizes are read as the COCO reader reads them; names outside the folder are never opened."""

import pytest

from tests.helpers.planted import SIZE, check, serious


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "x\0y.jpg", "..\\\\up.jpg", "C:\\\\a.jpg", "a/../../b.jpg", "."])
def test_names_outside_the_folder_are_reported_and_never_opened(polygons, name):
    data, folder = polygons
    data["images"][2]["file_name"] = name
    assert serious(check(data, folder)) == {("image-broken", 3, None)}


def test_names_and_sizes_are_read_as_the_reader_of_coco_reads_them(polygons):
    data, folder = polygons
    (folder / "sub").mkdir()
    (folder / "000003.jpg").rename(folder / "sub/3.jpg")
    data["images"][2].update(file_name="sub\\3.jpg", height=float(SIZE))
    assert serious(check(data, folder)) == set()
