"""Tables show cells as they are written, for the terminal and as Markdown."""

import pytest

from maskrcnn_ext.common.tables import csv_table, markdown_table, text_table


def test_cells_are_not_taken_for_numbers():
    table = text_table([["1e5", "007"], ["true", None]], ["a", "b"])
    assert [line.split() for line in table.splitlines()[2:]] == [["1e5", "007"], ["true"]]


def test_columns_line_up_and_align():
    lines = text_table([["a", "1"], ["long", "100"]], ["name", "count"], align=["left", "right"]).splitlines()
    assert lines == ["name      count", "------  -------", "a             1", "long        100"]
    assert text_table([["a", "b"], ["long", "c"]]).splitlines() == ["a     b", "long  c"]


@pytest.mark.parametrize(("headers", "expected"), [((), ""), (["a"], "a\n---")])
def test_a_table_without_rows(headers, expected):
    assert text_table([], headers) == expected


def test_none_leaves_a_cell_empty():
    assert text_table([["a", None, "b"]]).split() == ["a", "b"]
    assert markdown_table([["a", None]], ["c", "d"]).splitlines()[-1].split() == ["|", "a", "|", "|"]


def test_a_bar_in_a_markdown_cell_is_escaped():
    assert markdown_table([["a|b"]], ["c"]).splitlines()[-1] == "| a\\|b |"


def test_a_cell_of_csv_is_no_formula():
    rows = [["=cmd", "+1", "-1", "@a", "\t=1", "a=b", -1, None, 'a"b,c']]
    assert csv_table(["=h"], rows) == "'=h\r\n'=cmd,'+1,'-1,'@a,'\t=1,a=b,-1,,\"a\"\"b,c\"\r\n"


def test_control_characters_are_shown():
    assert text_table([["a\x1b[2J\nb"]]) == "a\\x1b[2J\\nb"
