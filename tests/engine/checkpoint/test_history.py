"""Which checkpoint a run resumes from."""

import logging
import os

import pytest

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.checkpoint.files import write
from maskrcnn_ext.engine.checkpoint.history import find_newest, list_numbered, read_iteration
from maskrcnn_ext.errors import InputError
from tests.helpers.checkpoints import flip, linear, resumed, saved_run, truncate


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_several_damaged_files_are_all_reported(tmp_path, caplog):
    saved_run(tmp_path, 1, 3, 5)
    truncate(tmp_path / "model_0000005.pth")
    flip(tmp_path / "model_0000003.pth")
    assert resumed(tmp_path) == 1
    (message,) = warnings_of(caplog)
    assert message.index("model_0000005.pth") < message.index("model_0000003.pth") < message.index("model_0000001.pth")


def test_damaged_checkpoints_do_not_start_from_scratch(tmp_path):
    saved_run(tmp_path, 1, 3)
    for file in tmp_path.glob("*.pth"):
        truncate(file)
    with pytest.raises(InputError, match=r"model_0000003.*model_0000001.*every checkpoint in .* is damaged") as error:
        resumed(tmp_path)
    assert "\n" not in str(error.value)


def test_a_user_may_edit_last_checkpoint(tmp_path):
    saved_run(tmp_path, 1, 3, 5)
    Checkpointer(linear(9), str(tmp_path)).tag_last_checkpoint("model_0000001.pth")
    assert resumed(tmp_path) == 1
    (tmp_path / "last_checkpoint").write_bytes(b"\xff\x00")
    assert resumed(tmp_path) == 5, "the newest, if last_checkpoint is broken"


def test_a_run_killed_before_it_wrote_last_checkpoint(tmp_path):
    saved_run(tmp_path, 1, 3)
    note = (tmp_path / "last_checkpoint").read_bytes()
    times = (tmp_path / "last_checkpoint").stat()
    saved_run(tmp_path, 5)
    (tmp_path / "last_checkpoint").write_bytes(note)
    os.utime(tmp_path / "last_checkpoint", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert resumed(tmp_path) == 5
    (tmp_path / "last_checkpoint").unlink()
    assert Checkpointer(linear(), str(tmp_path)).has_checkpoint()
    assert resumed(tmp_path) == 5


def test_a_younger_file_of_an_earlier_iteration_is_not_newer(tmp_path):
    # As after `cp -r`, which sets the times of the copies.
    saved_run(tmp_path, 1, 3, 5)
    (tmp_path / "model_0000003.pth").touch()
    assert resumed(tmp_path) == 5


def test_the_best_weights_are_not_resumed_from(tmp_path):
    saved_run(tmp_path, 1, 3)
    Checkpointer(linear(100), str(tmp_path)).save("model_best", iteration=3)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    assert resumed(tmp_path) == 3
    truncate(tmp_path / "model_0000003.pth")
    assert resumed(tmp_path) == 1


def test_a_final_file_of_another_run_is_not_resumed_from(tmp_path):
    write({"model": linear(4).state_dict(), "iteration": 89999}, tmp_path / "model_final.pth")
    assert resumed(tmp_path) == -1
    assert resumed(tmp_path, str(tmp_path / "model_final.pth")) == 4


def test_numbered_checkpoints_are_sorted_by_iteration(tmp_path):
    saved_run(tmp_path, 10, 9)
    saved_run(tmp_path, 3, prefix="other")
    (tmp_path / "model_final.pth").touch()
    assert list(list_numbered(tmp_path, "model")) == [9, 10]
    assert read_iteration(list_numbered(tmp_path, "other")[3]) == 3
    assert find_newest(tmp_path / "nowhere") is None
