"""Locks a folder, so that two programs do not write into it at the same time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from maskrcnn_ext.errors import InputError

_NAME = ".lock"
# Loader workers hold their parent's locks, and notice its death after some seconds.
_ORPHANS_LIVE = 15.0


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other programs that lock the same folder out until the block ends.

    The system frees the lock when the process ends, however it ends, so a killed program never blocks the next one. Where a file system
    has no locks, nothing is locked.

    Args:
        folder: the output folder; made if it is missing. The file ``.lock`` in it names the process.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.

    Example:
        >>> with lock_folder(tmp_path / "run"):
        ...     (tmp_path / "run/.lock").is_file()
        True
    """
    path = folder / _NAME
    deadline = time.monotonic() + _ORPHANS_LIVE
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error
        with file:
            if not try_lock(file):
                owner = _owner(file)
                if _is_dead(owner) and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise InputError(
                    f"{folder}: {' '.join(owner) or 'another process'} is writing into it: wait for it or stop it, or choose another "
                    "folder"
                )
            if not _is_at(file, path):  # its owner removed it after it was opened here
                continue
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):
                    path.unlink()
            return


def try_lock(file: IO[str] | IO[bytes]) -> bool:
    """Locks an open file against other processes until it is closed. Returns False if another one has locked it.

    Where the system or the file system has no locks, it returns True and locks nothing.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _owner(file: IO[str]) -> list[str]:
    """Returns the words that the owner wrote, "process 12 on host"; none if it has not done so yet."""
    file.seek(0)
    return file.read().split()


def _is_dead(owner: list[str]) -> bool:
    """Returns whether the owner is a process of this machine that has ended. Its forked children may still hold the lock."""
    if len(owner) != 4 or owner[3] != socket.gethostname() or not owner[1].isdecimal():
        return False
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to another user
        pass
    return False


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
