"""Checkpoint files are written whole or not at all, and reading them runs no code."""

import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from maskrcnn_ext.common.files import atomic_path
from maskrcnn_ext.engine.checkpoint.files import read, remove_leftovers, write
from maskrcnn_ext.errors import InputError
from tests.helpers.checkpoint_contents import checkpoint, equal, one_line


def test_written_files_are_those_of_torch(tmp_path):
    path = tmp_path / "model_0000004.pth"
    write(checkpoint(), path)
    assert equal(torch.load(path, weights_only=True), checkpoint())
    assert equal(read(path), checkpoint())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    state = torch.nn.BatchNorm2d(3).state_dict()
    write(state, path)
    assert read(path)._metadata == state._metadata, "versions of modules, by which they convert old weights"


# Failures while writing.


def in_child(function, *arguments):
    """Runs a function in another process; returns its exit status, the negative signal number after a kill."""
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode


LARGE = {"model": {f"l{i}": torch.full((64, 64), float(i)) for i in range(20)}, "iteration": 9}


def write_with_limit(path, limit, message):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write(LARGE, path)
    except InputError as error:
        message.send(str(error))


@pytest.mark.parametrize("limit", [0, 1000, 100_000, 327_000])
def test_a_limit_on_the_size_of_files_leaves_the_old_one(tmp_path, limit):
    path = tmp_path / "model_0000004.pth"
    write(checkpoint(), path)
    ours, theirs = multiprocessing.Pipe()
    assert in_child(write_with_limit, path, limit, theirs) == 0
    assert ours.poll(), "the write has not failed"
    message = ours.recv()
    assert message.startswith(f"cannot write {path} (File too large; ")
    assert "MB are free); the previous file is intact: free some space" in message
    assert "\n" not in message
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert equal(read(path), checkpoint())


def test_a_full_disk_leaves_the_old_file(tmp_path):
    # A disk of one megabyte, in a namespace of this process.
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*space, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("this machine lets no user mount a file system")
    code = """
        import sys
        from pathlib import Path
        import torch
        from maskrcnn_ext.engine.checkpoint.files import read, write, write_text
        from maskrcnn_ext.errors import InputError
        path = Path(sys.argv[1])
        write({"model": {"a": torch.ones(100_000)}}, path)
        for larger in (170_000, 250_000):
            try:
                write({"model": {"a": torch.zeros(larger)}}, path)
            except InputError as error:
                print(error)
        (path.parent / "filler").write_bytes(bytes(500_000))
        try:
            write_text("x" * 200_000, path.parent / "last_checkpoint")
        except InputError as error:
            print(error)
        print(sorted(file.name for file in path.parent.iterdir()), read(path)["model"]["a"].sum().item())
    """
    script = f"mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} - {tmp_path}/a.pth"
    done = subprocess.run(
        [*space, "sh", "-c", script], input=textwrap.dedent(code), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    first, second, third, rest = done.stdout.splitlines()
    for line in (first, second):
        assert line.startswith(f"cannot write {tmp_path}/a.pth (No space left on device; 1 MB are free")
    assert third.startswith(f"cannot write {tmp_path}/last_checkpoint (No space left on device; 0 MB are free")
    assert rest == "['a.pth', 'filler'] 100000.0"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*/file/a\.pth \(File exists.*free some space") as error:
        write(checkpoint(), tmp_path / "file/a.pth")
    one_line(error)


def test_an_object_that_cannot_be_pickled(tmp_path):
    path = tmp_path / "a.pth"
    write(checkpoint(), path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        write({"f": lambda: 0}, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert equal(read(path), checkpoint())


def killed_while_writing(path, moment):
    with atomic_path(path) as partial:
        partial.write_bytes(b"PK" * 1000)
        os.kill(os.getpid(), signal.SIGKILL)


def killed_at(path, moment):
    def audit(event, arguments):
        # The folder is opened once, to flush the rename.
        at_rename = event == "os.rename" and moment == "before the rename"
        if at_rename or (event == "open" and str(arguments[0]) == str(path.parent)):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    write(LARGE, path)


@pytest.mark.parametrize("moment", ["while it writes", "before the rename", "after the rename"])
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path, moment):
    path = tmp_path / "a.pth"
    write(checkpoint(), path)
    killed = killed_while_writing if moment == "while it writes" else killed_at
    assert in_child(killed, path, moment) == -signal.SIGKILL
    left = sorted(file.name for file in tmp_path.iterdir())
    if moment == "after the rename":
        assert read(path)["iteration"] == 9
        assert left == ["a.pth"]
    else:
        assert equal(read(path), checkpoint())
        assert len(left) == 2
        assert left[0].startswith(".partial-")
        for name in (".of-a-user", ".a.pth.tmp"):  # the latter is named as by version 0.1.0
            (tmp_path / name).touch()
        remove_leftovers(tmp_path)
        assert sorted(file.name for file in tmp_path.iterdir()) == [".of-a-user", "a.pth"]
