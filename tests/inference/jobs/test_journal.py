"""Journals: a kill at any moment loses nothing that was finished; damaged and foreign files are refused."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.jobs.journal import Journal, Journals

IDENTITY = {"weights": "a.pth", "tile": [1024, 0.2]}
PIECES = {"a": [1, 2.5], "bß\udc80\n": {"key": "b"}, "c": None, "": "x" * 5000}


def fill(path):
    with Journal(path, IDENTITY) as journal:
        for key, value in PIECES.items():
            journal.add(key, value)


def test_values_are_kept_for_the_next_run(tmp_path):
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


def test_a_key_that_is_added_again_replaces_the_value(tmp_path):
    fill(tmp_path / "j")
    with Journal(tmp_path / "j", IDENTITY) as journal:
        journal.add("a", "new")
    with Journal(tmp_path / "j", IDENTITY) as journal:
        assert dict(journal) == {**PIECES, "a": "new"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_file_truncated_anywhere_keeps_its_complete_lines(tmp_path, share):
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


def test_damaged_lines_are_refused(tmp_path):
    fill(tmp_path / "j")
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join([*lines[:2], b"\0\0\0\n", *lines[2:]]))
    with pytest.raises(InputError, match="damaged"):
        Journal(tmp_path / "j", IDENTITY)
    (tmp_path / "j").write_bytes(b"".join([lines[0], lines[1].replace(b"[1, 2.5]", b"[1, 2.!]")]))
    with Journal(tmp_path / "j", IDENTITY) as journal, pytest.raises(InputError, match="line of a is damaged"):
        journal["a"]


def test_another_identity_is_refused_and_nothing_is_lost(tmp_path):
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
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(InputError, match="not a journal"):
        Journal(tmp_path / "j", IDENTITY)
    assert (tmp_path / "j").read_bytes() == content


def test_write_errors_name_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path / "file" / "j", IDENTITY)
    with pytest.raises(InputError, match="cannot be written"):
        Journal(tmp_path, IDENTITY)


def test_two_processes_at_once_are_refused(tmp_path, run_python):
    pytest.importorskip("fcntl")
    code = "import sys, pathlib; from maskrcnn_ext.inference.jobs.journal import Journal; Journal(pathlib.Path(sys.argv[1]), {})"
    with Journal(tmp_path / "j", {}):
        assert "another process is writing it" in run_python("-c", code, tmp_path / "j").stderr
    assert run_python("-c", code, tmp_path / "j").returncode == 0


def test_values_are_read_on_access(tmp_path):
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


def test_shards_are_read_with_the_main_journal_which_takes_additions(tmp_path):
    with Journal(tmp_path / "main", {}) as main, Journal(tmp_path / "shard", {}) as shard:
        main.add("a", 1)
        shard.add("a", 2)
        shard.add("b", 3)
        both = Journals(main, [shard])
        both.add("c", 4)
        assert dict(both) == {"a": 1, "b": 3, "c": 4}
        assert "c" in main
        assert (len(both), "b" in both, "z" in both, both.get("z")) == (3, True, False, None)
