"""One process at a time writes into a folder; a killed one does not block the next."""

import multiprocessing
import os
import signal
from functools import partial

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.common.lock import lock_folder

FORK = multiprocessing.get_context("fork")


def hold(folder, ready, release, children=0):
    """Locks a folder, says so, and holds it until the test closes its end of the pipe `release`."""
    reading, writing = release
    os.close(writing)
    with lock_folder(folder):
        for _ in range(children):  # as loader workers, which outlive a killed parent for a moment
            if os.fork() == 0:
                os.read(reading, 1)
                os._exit(0)
        ready.set()
        os.read(reading, 1)


def start(folder, **arguments):
    """Returns a process that holds the lock, and a function that lets it go on.

    The function closes a pipe. Setting an Event would wait for every process that waits for it, also for one that was killed.
    """
    ready, release = FORK.Event(), os.pipe()
    process = FORK.Process(target=hold, args=(folder, ready, release), kwargs=arguments)
    process.start()
    os.close(release[0])
    assert ready.wait(20)
    return process, partial(os.close, release[1])


def test_a_second_process_gets_one_line_that_names_the_first(tmp_path):
    process, release = start(tmp_path / "run")
    with pytest.raises(InputError, match=rf"run: process {process.pid} on .* is writing into it: wait for it or"):
        lock_folder(tmp_path / "run").__enter__()
    release()
    process.join()
    with lock_folder(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    process, release = start(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    release()
    assert (tmp_path / ".lock").exists()
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_the_orphans_of_a_killed_process_are_waited_for(tmp_path):
    process, release = start(tmp_path, children=1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    release()
    with lock_folder(tmp_path):
        pass


def test_the_same_process_locks_once(tmp_path):
    with lock_folder(tmp_path), pytest.raises(InputError, match="is writing into it"):
        lock_folder(tmp_path).__enter__()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file cannot be written .*: choose another folder"):
        lock_folder(tmp_path / "file").__enter__()
