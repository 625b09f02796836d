"""The journal of a long job: whatever the moment of the kill, what was finished is there and the rest goes on."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.jobs.journal import Journal

IDENTITY = {"weights": "a.pth", "tile": [1024, 0.2]}
PIECES = {"a": [1, 2.5], "bß\udc80\n": {"key": "b"}, "c": None, "": "x" * 5000}


def fill(path):
    with Journal(path, IDENTITY) as journal:
        for key, value in PIECES.items():
            journal.add(key, value)


def test_what_was_added_is_there_in_the_next_run(tmp_path):
    fill(tmp_path / "deep" / "journal")
    with Journal(tmp_path / "deep" / "journal", IDENTITY) as journal:
        assert dict(journal) == PIECES
        assert list(journal) == list(PIECES)
        assert "a" in journal
        assert "z" not in journal
        assert journal.get("z") is None
        journal.add("d", 4)
        assert journal["a"] == [1, 2.5]  # after reading, lines still go to the end
        journal.add("e", 5)
        assert dict(journal) == {**PIECES, "d": 4, "e": 5}


def test_what_is_added_again_takes_the_place(tmp_path):
    fill(tmp_path / "j")
    with Journal(tmp_path / "j", IDENTITY) as journal:
        journal.add("a", "new")
    with Journal(tmp_path / "j", IDENTITY) as journal:
        assert dict(journal) == {**PIECES, "a": "new"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_cut_off_anywhere_it_keeps_the_whole_lines_and_takes_more(tmp_path, share):
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    fill(path)
    content = path.read_bytes()
    cut = content[: round(share * len(content))]
    path.write_bytes(cut)
    whole = max(cut.count(b"\n") - 1, 0)
    with Journal(path, IDENTITY) as journal:
        assert dict(journal) == dict(list(PIECES.items())[:whole])
        journal.add("later", 1)
    with Journal(path, IDENTITY) as journal:
        assert list(journal) == [*list(PIECES)[:whole], "later"]


def test_a_line_that_is_damaged_in_the_middle_is_said(tmp_path):
    fill(tmp_path / "j")
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join([*lines[:2], b"\0\0\0\n", *lines[2:]]))
    with pytest.raises(InputError, match="damaged"):
        Journal(tmp_path / "j", IDENTITY)
    (tmp_path / "j").write_bytes(b"".join([lines[0], lines[1].replace(b"[1, 2.5]", b"[1, 2.!]")]))
    with Journal(tmp_path / "j", IDENTITY) as journal, pytest.raises(InputError, match="line of a is damaged"):
        journal["a"]


def test_another_identity_is_refused_by_name_and_nothing_is_lost(tmp_path):
    fill(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(InputError, match=r"weights was a\.pth, is b\.pth; dtype was None, is bf16\)") as caught:
        Journal(tmp_path / "j", {**IDENTITY, "weights": "b.pth", "dtype": "bf16"})
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="tile was"):
        Journal(tmp_path / "j", {"weights": "a.pth"})
    assert (tmp_path / "j").read_bytes() == before
    with Journal(tmp_path / "j", {"weights": "a.pth", "tile": (1024, 0.2)}) as journal:  # JSON has no tuples
        assert len(journal) == len(PIECES)


@pytest.mark.parametrize("content", [b"hello\n", b"hello", b"[]\n", b'{"key": "a", "value": 1}\n', b"\xff\xfe\n"])
def test_another_file_is_not_taken_for_a_journal(tmp_path, content):
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(InputError, match="not a journal"):
        Journal(tmp_path / "j", IDENTITY)
    assert (tmp_path / "j").read_bytes() == content


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "file" / "j", IDENTITY)
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path, IDENTITY)


def test_two_at_once_are_refused(tmp_path, run_python):
    pytest.importorskip("fcntl")
    code = "import sys, pathlib; from maskrcnn_ext.inference.jobs.journal import Journal; Journal(pathlib.Path(sys.argv[1]), {})"
    with Journal(tmp_path / "j", {}):
        assert "another process is writing it" in run_python("-c", code, tmp_path / "j").stderr
    assert run_python("-c", code, tmp_path / "j").returncode == 0


def test_values_are_read_when_they_are_asked_for(tmp_path):
    with Journal(tmp_path / "j", {}) as journal:
        for number in range(50):
            journal.add(str(number), "x" * 10_000)
    with Journal(tmp_path / "j", {}) as journal:
        assert len(journal) == 50
        # Another process puts other text of the same length there: what is given is what the file says now.
        content = (tmp_path / "j").read_bytes().replace(b"x", b"y")
        os.pwrite(os.open(tmp_path / "j", os.O_WRONLY), content, 0)
        assert journal["49"] == "y" * 10_000
    assert json.loads(content.splitlines()[0]) == {"identity": {}}
