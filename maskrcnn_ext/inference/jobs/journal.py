"""The finished parts of a long job in a file, so that the job can be killed at any moment and continued later."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.lock import try_lock
from maskrcnn_ext.errors import InputError

_HEADER, _KEY = b'{"identity": ', b'{"key": '


class Journal(Mapping[str, Any]):
    """A mapping of keys to finished results in a file of JSON lines, which stays usable when the job is killed.

    Values are read from the file on access, so a journal may be larger than memory. The first line is the identity of the job. A value
    that is added under an existing key replaces the old one.

    Example:
        >>> with Journal(tmp_path / "journal.jsonl", {"weights": "a.pth"}) as journal:
        ...     journal.add("1.png", [0.9])
        >>> with Journal(tmp_path / "journal.jsonl", {"weights": "a.pth"}) as journal:
        ...     journal["1.png"]
        [0.9]
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        """Opens the file, or starts it. An incomplete last line, left by a kill or a full disk, is removed.

        Args:
            path: the file; missing parent folders are made.
            identity: all that the results depend on (weights, settings, ...), as JSON types.

        Raises:
            InputError: the file was started with another identity, is not a journal, is open in another process, or cannot be written.
        """
        self.path = path
        self._offsets: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")  # does not truncate an existing file
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror})") from error
        try:
            if not try_lock(self._file):
                raise InputError(f"{path}: another process is writing it: wait for it, or choose another folder")
            self._index_lines(json.loads(json.dumps(identity)))
        except BaseException:
            self._file.close()
            raise

    def add(self, key: str, value: Any) -> None:
        """Adds a value; it is on the disk when this returns.

        Raises:
            InputError: it cannot be written.
        """
        self._offsets[key] = self._append({"key": key, "value": value})

    def __getitem__(self, key: str) -> Any:
        self._file.seek(self._offsets[key])
        try:
            return json.loads(self._file.readline())["value"]
        except ValueError as error:
            raise InputError(f"{self.path}: the line of {key} is damaged: delete the file to start again") from error

    def __contains__(self, key: object) -> bool:
        return key in self._offsets  # Mapping's own would read the value

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # add() has reported it
            self._file.close()

    def _index_lines(self, identity: dict[str, Any]) -> None:
        """Checks the identity, notes where each value starts, and truncates the file after the last complete line."""
        self._file.seek(0)
        complete = 0  # bytes of complete lines
        for line in self._file:
            if not line.endswith(b"\n"):
                if complete == 0 and not line.startswith(_HEADER[: len(line)]):
                    raise self._not_a_journal()
                break
            if complete == 0:
                self._check_identity(line, identity)
            else:
                self._offsets[self._parse_key(line)] = complete
            complete += len(line)
        self._file.truncate(complete)
        if complete == 0:
            self._append({"identity": identity})

    def _check_identity(self, line: bytes, identity: dict[str, Any]) -> None:
        try:
            stored = json.loads(line)["identity"]
        except (ValueError, KeyError, TypeError):
            raise self._not_a_journal() from None
        differing = [name for name in {**stored, **identity} if stored.get(name) != identity.get(name)]
        if differing:
            changes = "; ".join(f"{name} was {stored.get(name)}, is {identity.get(name)}" for name in differing)
            raise InputError(
                f"{self.path} was started with other settings ({changes}): choose another folder, or start again (--restart)"
            )

    def _not_a_journal(self) -> InputError:
        return InputError(f"{self.path} is not a journal of a job: choose another folder")

    def _parse_key(self, line: bytes) -> str:
        """Returns the key of a line without parsing the value, which may be long."""
        try:
            if not (line.startswith(_KEY) and line.endswith(b"}\n")):
                raise ValueError
            key, _ = json.JSONDecoder().raw_decode(line.decode("ascii"), len(_KEY))
        except ValueError:
            raise InputError(f"{self.path} is damaged: delete it to start again") from None
        return str(key)

    def _append(self, content: dict[str, Any]) -> int:
        """Writes a line and returns the offset of its start."""
        offset = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(json.dumps(content).encode("ascii") + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror})") from error
        return offset


class Journals(Mapping[str, Any]):
    """A job's journal and the shards of its workers, read as one mapping."""

    def __init__(self, main: Journal, shards: Sequence[Journal]) -> None:
        """Takes open journals; :meth:`add` writes to `main`."""
        self._main = main
        self._all = [main, *shards]

    def add(self, key: str, value: Any) -> None:
        """Adds a value to the main journal, see :meth:`Journal.add`."""
        self._main.add(key, value)

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
