"""File names that fit into one folder, and outputs that appear whole or not at all."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.writers.files import common_folder, image_names, staged


@settings(max_examples=25, deadline=None)
@given(
    paths=st.sets(st.sampled_from([f"{a}/{b}.{c}" for a in "xyz" for b in "abA" for c in ("jpg", "png")]), min_size=1)
)
def test_names_in_one_folder_are_unique_by_stem(paths):
    data = DataSet(["a"], [ImageRecord(f"/data/{path}", path, 1, 1) for path in sorted(paths)])
    names = image_names(data)
    assert len({Path(name).stem.casefold() for name in names}) == len(paths)
    assert [Path(name).suffix for name in names] == [Path(path).suffix for path in sorted(paths)]
    assert str(common_folder(data)).startswith("/data")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b#%.JPG", "a b#%.JPG"),
        ("日本.png", "日本.png"),
        ("scan", "scan.png"),
        ("scan.0001", "scan.0001.png"),
        (".hidden.png", "_hidden.png"),
        ("new\nline.png", "new_line.png"),
        ("a\\b.png", "a_b.png"),
        (os.fsdecode(b"\xff.png"), "_.png"),
        ("x" * 251 + ".png", "x" * 251 + ".png"),
    ],
)
def test_every_reader_finds_images_by_their_names(tmp_path, name, expected):
    Image.new("L", (4, 4)).save(tmp_path / name, "PNG")
    (found,) = image_names(DataSet(["a"], [ImageRecord(str(tmp_path / name), 1, 4, 4)]))
    if len(name) < 200:
        assert found == expected
    else:
        assert len(found) <= 240
        assert found.endswith(".png")


def test_an_error_on_the_way_leaves_the_old_one(tmp_path):
    target = tmp_path / "out"
    target.write_text("old")

    def fail():
        with staged(target, overwrite=True) as partial:
            partial.mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
