"""File names that fit into one folder, and outputs that appear whole or not at all."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
