"""Rows of CSVs are read with any of the usual separators, and images are found by them."""

from pathlib import Path

import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.csv_table import column_names, first_of, read_first_row, read_images, read_rows


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_rows_have_their_lines_and_the_names_of_columns(tmp_path, mark):
    file = tmp_path / "a.csv"
    file.write_text(f"Image Id{mark} LABEL\n\nx.png{mark} a cat \n{mark}\n'y'.png{mark}\n")
    columns, rows = read_rows(file)
    assert columns == ["image_id", "label"]
    assert rows == [(3, {"image_id": "x.png", "label": "a cat"}), (5, {"image_id": "'y'.png", "label": ""})]
    assert column_names(read_first_row(file)) == columns
    assert read_rows(file, ["a", "b"])[1][0] == (1, {"a": "Image Id", "b": "LABEL"})


def test_quotes_hold_a_separator(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('image,text\na.png,"1, 2"\n')
    assert read_rows(file)[1] == [(2, {"image": "a.png", "text": "1, 2"})]
    file.write_text("image,text\na.png,1, 2\n")
    with pytest.raises(InputError, match=r"a.csv, line 2: has 3 values, expected 2"):
        read_rows(file)


def test_long_values_need_no_quotes(tmp_path):
    file = tmp_path / "a.csv"
    value = "1 2 " * 50_000
    file.write_text(f"image,mask\na.png,{value}\n")
    assert read_rows(file)[1] == [(2, {"image": "a.png", "mask": value.strip()})]
    file.write_text(f'image,mask\na.png,"{value}"\n')
    with pytest.raises(InputError, match=r"a.csv: not a CSV file \(field larger than field limit"):
        read_rows(file)


def test_an_empty_file_has_no_columns(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("")
    assert read_first_row(file) == []
    assert read_rows(file) == ([], [])
    assert first_of(("a", "b"), []) is None
    assert first_of(("a", "b"), ["c", "b", "a"]) == "a"


def test_rows_of_an_image_are_one_record_and_faults_are_collected(tmp_path):
    for name in ("x.png", "y.png"):
        Image.new("RGB", (5, 4)).save(tmp_path / name)
    rows = [(2, {"image": "X"}), (3, {"image": "y.png"}), (4, {"image": "X"}), (5, {"image": "z"})]

    def add(record, row, where):
        if where.endswith("line 3"):
            raise InputError(f"{where}: broken")
        record.extra.setdefault("lines", []).append(where)

    faults = []
    table = Path("t.csv")
    records = read_images(table, tmp_path, rows, "image", False, add, faults)
    assert [(Path(each.file_name).name, each.height, each.width) for each in records] == [
        ("x.png", 4, 5),
        ("y.png", 4, 5),
    ]
    assert [each.extra for each in records] == [{"lines": ["t.csv, line 2", "t.csv, line 4"]}, {}]
    assert len(faults) == 2
    assert "t.csv, line 3: broken" in faults
    sized = [(2, {"image": "x", "width": "5", "height": "3"})]
    with pytest.raises(InputError, match=r"line 2: says 5 x 3 \(width, height\), but .*x.png is 5 x 4"):
        read_images(table, tmp_path, sized, "image", True, add, None)
    assert len(read_images(table, tmp_path, sized, "image", False, add, None)) == 1
