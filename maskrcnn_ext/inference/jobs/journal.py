"""What a long job has finished, kept so that it can be killed at any moment and go on later."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from maskrcnn_ext.errors import InputError

_HEADER, _KEY = b'{"identity": ', b'{"key": '


class Journal(Mapping[str, Any]):
    """Finished pieces of a job, one JSON line each, in a file that a killed job leaves usable.

    It is a mapping of keys to values that are read from the file when they are asked for, so that a journal may be larger than memory. The
    first line is the identity of the job. What is added again under a key takes the place of what was there.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Opens the file, or begins it. A line that was cut off at the end, by a kill or a full disk, is cut away.

        Args:
            path: the file; its folder is made.
            identity: what results depend on (weights, settings, ...), of JSON's types.

        Raises:
            InputError: the file was begun with another identity, is no journal, is being written by another process, or cannot be.
        """
        self.path = path
        self._places: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")  # never cuts what is there
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror})") from error
        try:
            _lock(self._file, path)
            self._open(json.loads(json.dumps(identity)))
        except BaseException:
            self._file.close()
            raise

    def add(self, key: str, value: Any) -> None:
        """Adds a piece; it is on the disk when this returns.

        Raises:
            InputError: it cannot be written.
        """
        self._places[key] = self._append({"key": key, "value": value})

    def done(self) -> dict[str, Any]:
        """Returns the values of all keys."""
        return dict(self)

    def __getitem__(self, key: str) -> Any:
        self._file.seek(self._places[key])
        try:
            return json.loads(self._file.readline())["value"]
        except ValueError as error:
            raise InputError(f"{self.path}: the line of {key} is damaged: delete the file to begin anew") from error

    def __contains__(self, key: object) -> bool:
        return key in self._places  # the default would read the value

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what add() could not write and has told of
            self._file.close()

    def _open(self, identity: dict[str, Any]) -> None:
        self._file.seek(0)
        whole = 0  # bytes of whole lines
        for line in self._file:
            if not line.endswith(b"\n"):
                if whole == 0 and not line.startswith(_HEADER[: len(line)]):
                    raise self._foreign()
                break
            if whole == 0:
                self._check(line, identity)
            else:
                self._places[self._key(line)] = whole
            whole += len(line)
        self._file.truncate(whole)
        if whole == 0:
            self._append({"identity": identity})

    def _check(self, line: bytes, identity: dict[str, Any]) -> None:
        try:
            begun = json.loads(line)["identity"]
        except (ValueError, KeyError, TypeError):
            raise self._foreign() from None
        differing = [name for name in {**begun, **identity} if begun.get(name) != identity.get(name)]
        if differing:
            told = "; ".join(f"{name} was {begun.get(name)}, is {identity.get(name)}" for name in differing)
            raise InputError(
                f"{self.path} was begun with other settings ({told}): choose another folder, or begin anew"
            )

    def _foreign(self) -> InputError:
        return InputError(f"{self.path} is no journal of a job: choose another folder")

    def _key(self, line: bytes) -> str:
        """The key of a line, without reading the value, which may be long."""
        try:
            if not (line.startswith(_KEY) and line.endswith(b"}\n")):
                raise ValueError
            key, _ = json.JSONDecoder().raw_decode(line.decode("ascii"), len(_KEY))
        except ValueError:
            raise InputError(f"{self.path} is damaged: delete it to begin anew") from None
        return str(key)

    def _append(self, content: dict[str, Any]) -> int:
        """Writes a line; returns where it begins."""
        place = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(json.dumps(content).encode("ascii") + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror})") from error
        return place


class Journals(Mapping[str, Any]):
    """A job's journal and others that are read with it, as one."""

    def __init__(self, own: Journal, others: Sequence[Journal]) -> None:
        """Takes open journals; what is added goes into `own`."""
        self._own = own
        self._all = [own, *others]

    def add(self, key: str, value: Any) -> None:
        """See :meth:`Journal.add`."""
        self._own.add(key, value)

    def __getitem__(self, key: str) -> Any:
        for journal in self._all:
            if key in journal:
                return journal[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return any(key in journal for journal in self._all)

    def __iter__(self) -> Iterator[str]:
        return iter({key: None for journal in self._all for key in journal})

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _lock(file: BinaryIO, path: Path) -> None:
    """Keeps other processes from writing the file as long as it is open, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{path}: another process is writing it: wait for it, or choose another folder") from None
    except OSError:  # a file system without locks
        return
