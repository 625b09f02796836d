"""Files that appear whole or not at all, also a long list that is written bit by bit."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives the path to write to instead, of the same suffix; it takes the file's place when the block ends without an error.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:  # a full disk, a folder that is closed to this user
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file.

    Raises:
        InputError: it cannot be written.
    """
    with whole(path) as partial:
        partial.write_bytes(data)


class JsonList:
    """A JSON file with a list that need not fit into memory. A context manager: the file is there when it ends without an error."""

    def __init__(self, path: Path) -> None:
        """Begins the list; a former file stays until this one is whole."""
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(self._stack.enter_context(whole(path)).open("w", encoding="ascii"))
        self._separator = "["

    def extend(self, entries: Iterable[Any]) -> None:
        """Adds entries, a line each."""
        for entry in entries:
            self._file.write(f"{self._separator}\n{json.dumps(entry)}")
            self._separator = ","

    def __enter__(self) -> JsonList:
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._file.write("[]\n" if self._separator == "[" else "\n]\n")
        self._stack.__exit__(*error)
