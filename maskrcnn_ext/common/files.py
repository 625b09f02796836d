"""Writes files completely or not at all, even if the program is interrupted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from maskrcnn_ext.errors import InputError

_PARTIAL = ".partial-"


class WriteError(InputError):
    """A file cannot be written, for example because the disk is full. The older file is intact."""


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path, and renames it to `path` when the block ends without an error.

    A reader finds the old file or the new one, never a part of either. The temporary path is in the same folder, because a rename
    is atomic only within one file system. It has the same suffix, because some writers choose the format by it. Works for files
    and folders.

    Args:
        path: the file or folder to write; missing parent folders are created.
        durable: whether to flush the content to the disk before the rename, so that it survives a power cut.

    Raises:
        WriteError: `path` cannot be written; the message names the cause and the free space. Errors of other files that the block
            reads or writes pass unchanged.

    Example:
        >>> with atomic_path(tmp_path / "result.json") as partial:
        ...     _ = partial.write_text("[]")
        >>> (tmp_path / "result.json").read_text()
        '[]'
    """
    with _temporary(path, path.suffix[:16]) as partial:
        yield partial
        if durable:
            for written in [partial, *partial.rglob("*")]:
                _sync(written)
        _replace(partial, path)
        if durable:
            _sync(path.parent)


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """Yields a path of the same name in a temporary folder, and moves all files there to the folder of `path` when the block ends.

    For a writer of several files, such as a model and a description beside it, or of a folder whose other files remain. Each file
    appears completely or not at all.

    Args:
        path: the file or folder that gives the others their names; missing parent folders are created.

    Raises:
        WriteError: a file cannot be written; see :func:`atomic_path`.

    Example:
        >>> with atomic_files(tmp_path / "export/model.xml") as partial:
        ...     _ = partial.write_text("graph"), partial.with_suffix(".bin").write_text("weights")
        >>> sorted(file.name for file in (tmp_path / "export").iterdir())
        ['model.bin', 'model.xml']
    """
    with _temporary(path) as folder:
        folder.mkdir()
        yield folder / path.name
        for written in sorted(folder.rglob("*")):
            target = path.parent / written.relative_to(folder)
            if written.is_dir():
                target.mkdir(exist_ok=True)
            else:
                _replace(written, target)


@contextmanager
def _temporary(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yields a path beside `path` that is removed at the end, and raises a WriteError for an error of writing it."""
    # A short name, because that of `path` may be as long as the file system allows.
    partial = path.with_name(f"{_PARTIAL}{secrets.token_hex(4)}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None or not _concerns(cause, partial, path):
            raise
        with suppress(OSError):
            remove(partial)  # before the free space is measured
        raise WriteError(f"cannot write {path} ({cause.strerror or cause}{_free_space(path.parent)})") from error
    finally:
        with suppress(OSError):
            remove(partial)


def write_atomic(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Writes a file completely or not at all. Text is encoded as UTF-8, and half of a surrogate pair, which UTF-8 lacks, as an escape.

    Raises:
        WriteError: the file cannot be written.

    Example:
        >>> write_atomic(tmp_path / "a.txt", "text")
        >>> (tmp_path / "a.txt").read_bytes()
        b'text'
    """
    with atomic_path(path, durable=durable) as partial:
        partial.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


class JsonListWriter:
    """Writes a JSON list that need not fit into memory. A context manager: the file appears when the block ends without an error.

    Example:
        >>> with JsonListWriter(tmp_path / "list.json") as entries:
        ...     entries.extend([{"id": 1}])
        >>> json.loads((tmp_path / "list.json").read_text())
        [{'id': 1}]
    """

    def __init__(self, path: Path) -> None:
        """Starts the list; an older file stays until this one is complete.

        Raises:
            WriteError: the file cannot be written. The end of the block raises it, too.
        """
        self._separator = "["
        self._writing = self._open(path)
        self._file = self._writing.__enter__()

    def extend(self, entries: Iterable[Any]) -> None:
        """Appends entries, one per line."""
        for entry in entries:
            self._file.write(f"{self._separator}\n{json.dumps(entry)}")
            self._separator = ","

    @contextmanager
    def _open(self, path: Path) -> Iterator[IO[str]]:
        with atomic_path(path) as partial, partial.open("w", encoding="ascii") as file:
            yield file
            file.write("[]\n" if self._separator == "[" else "\n]\n")

    def __enter__(self) -> JsonListWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writing.__exit__(*error)


def shorten_name(name: str, limit: int) -> str:
    """Returns a file name of at most `limit` bytes in UTF-8: a longer one is cut, and ends with a hash of the whole name.

    Example:
        >>> shorten_name("short", 20), shorten_name("a" * 30, 20)
        ('short', 'aaaaaaaaaaa~cd762363')
    """
    content = name.encode("utf-8", "surrogateescape")
    if len(content) <= limit:
        return name
    ending = "~" + hashlib.sha1(content, usedforsecurity=False).hexdigest()[:8]
    return content[: limit - len(ending)].decode("utf-8", "ignore") + ending


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with its content; does nothing if `path` does not exist.

    Example:
        >>> (tmp_path / "folder/inner").mkdir(parents=True)
        >>> remove(tmp_path / "folder")
        >>> (tmp_path / "folder").exists()
        False
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Removes the temporary files of :func:`atomic_path` that killed programs left below a folder. No program may be writing there.

    Raises:
        OSError: the folder cannot be changed.
    """
    for path in list(folder.rglob(f"{_PARTIAL}*")):
        remove(path)


def _replace(partial: Path, path: Path) -> None:
    """Renames `partial` to `path`. A rename replaces files by files only, so anything else is moved aside first."""
    if (path.is_dir() and not path.is_symlink()) or (partial.is_dir() and (path.exists() or path.is_symlink())):
        old = path.with_name(f"{_PARTIAL}{secrets.token_hex(4)}")
        path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            old.rename(path)
            raise
        remove(old)
    else:
        partial.replace(path)


def _sync(path: Path) -> None:
    """Flushes a file, or a folder's list of names, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems cannot flush folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def _os_error(error: BaseException | None) -> OSError | None:
    """Returns the OSError that caused an error, or None. torch raises a RuntimeError if it cannot write a file."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _concerns(error: OSError, partial: Path, path: Path) -> bool:
    """Returns whether an error is about the file that is written: it names that file, one inside it, a parent folder or no file."""
    names = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return not names or any(
        name in (partial, path) or partial in name.parents or name in path.parents for name in names
    )


def _free_space(folder: Path) -> str:
    try:
        return f"; {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free"
    except OSError:
        return ""
