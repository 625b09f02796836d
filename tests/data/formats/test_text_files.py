"""Texts, JSON and CSV of any Unicode encoding, and errors that name the file."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.text_files import read_json, read_rows, read_text


def test_rows_of_a_table(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('name,site\n\n"a,b",c\n')
    assert read_rows(file) == [["name", "site"], ["a,b", "c"]]
    file.write_text("name\n" + "a" * 200_000)
    with pytest.raises(InputError, match=r"a\.csv: not a CSV file .field larger than field limit"):
        read_rows(file)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b""])
def test_broken_json_is_named(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not a"):
        read_json(file)
    file.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(file) == [1]


def test_unreadable_json_is_named(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, message in (("deep.json", "not a JSON file"), ("none.json", "cannot be read"), ("", "cannot be read")):
        with pytest.raises(InputError, match=message):
            read_json(tmp_path / name)


@pytest.mark.parametrize("read", [read_text, read_json])
def test_a_text_that_is_not_unicode_names_its_encoding(tmp_path, read):
    file = tmp_path / "a.json"
    file.write_bytes('["\u732b\u72d7"]'.encode("gb18030"))
    with pytest.raises(
        InputError, match=r"a\.json: not UTF-8, probably gb18030.*iconv -f gb18030 -t utf-8 a\.json > a\.utf8\.json"
    ):
        read(file)
    file.write_bytes('["\u732b\u72d7"]'.encode("utf-16"))
    assert read(file) in (["\u732b\u72d7"], '["\u732b\u72d7"]')
