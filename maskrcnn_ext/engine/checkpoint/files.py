"""Files of tensors: written whole or not at all, and read without running what they ask for."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from maskrcnn_ext.errors import InputError

_TEMPORARY = ".tmp"
_ZIP = b"PK\x03\x04"
# What torch before 1.6 wrote begins with a pickled number.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class DamagedFileError(InputError):
    """A file is truncated, corrupt, or of another kind altogether."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when all is written and on the disk; `path` stays as it was if anything fails.

    Args:
        path: to write. The new file is built beside it, as a rename is atomic within one file system only.

    Raises:
        OSError: the disk is full, the folder is not there or closed.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems know no such thing for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


def write(obj: Any, path: Path) -> None:
    """Saves with ``torch.save``; whoever reads `path` finds the old file or the new one, whole.

    Raises:
        InputError: it cannot be written; the file that was there is as it was.
    """
    try:
        with replacing(path) as file:
            torch.save(obj, file)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise _cannot_write(path, cause) from error


def write_text(text: str, path: Path) -> None:
    """Writes a small file as :func:`write` does."""
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The fault of the disk behind an error: torch ends a file that it could not write with a RuntimeError of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _cannot_write(path: Path, error: OSError) -> InputError:
    try:
        room = f", {shutil.disk_usage(path.parent).free / 1e6:,.0f} MB are free"
    except OSError:
        room = ""
    return InputError(
        f"cannot write {path} ({error.strerror or error}{room}); what was there before is intact: make room, lower "
        "train.checkpointer.max_to_keep or change train.output_dir, then go on with --resume"
    )


def remove_leftovers(folder: Path) -> None:
    """Removes what writers left that were killed before they were done."""
    for file in folder.glob(f".*{_TEMPORARY}"):
        file.unlink(missing_ok=True)


def read(path: Path, *, allow_pickle: bool = False) -> Any:
    """Reads what ``torch.save`` or ``pickle.dump`` has written; the content tells which, not the name.

    Files of torch are checked record by record against their checksums (files from before torch 1.6 have none). Pickles, such as those of
    Detectron2's model zoo, may hold numpy arrays and plain containers.

    Args:
        path: of a local file.
        allow_pickle: let the file run whatever code it brings.

    Raises:
        DamagedFileError: truncated, corrupt, empty, or a file of another kind.
        InputError: there is no such file; it wants to run code and may not.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_OLD_TORCH))
    except OSError as error:
        raise InputError(f"checkpoint {path}: cannot be read ({error.strerror or error})") from error
    if not head:
        raise DamagedFileError(f"checkpoint {path}: the file is empty: copy or download it again")
    try:
        if head.startswith(_ZIP):
            _check_records(path)
            return _read_torch(path, allow_pickle)
        return _read_torch(path, allow_pickle) if head == _OLD_TORCH else _read_pickle(path, allow_pickle)
    except _WantsCodeError as error:
        raise InputError(
            f"checkpoint {path}: wants to run {error} while it is read, which can be any program; if you trust its source, set "
            "train.loading.allow_pickle=true"
        ) from error
    except Exception as error:  # there is no list of what damaged bytes make the readers raise
        reason = (str(error).strip().splitlines() or [""])[0][:100]
        kind = "truncated or corrupt" if head.startswith((_ZIP, b"\x80")) else "neither a file of torch nor a pickle"
        raise DamagedFileError(
            f"checkpoint {path}: {kind} ({type(error).__name__}: {reason}): copy or download it again"
        ) from error


class _WantsCodeError(Exception):
    """A file names something that is not data; the message is its full name."""


def _check_records(path: Path) -> None:
    """Compares the checksums of a zip archive, which torch writes and does not look at when it reads."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"checksum of {broken} is wrong")


def _read_torch(path: Path, allow_pickle: bool) -> Any:
    if allow_pickle:
        return torch.load(path, map_location="cpu", weights_only=False)
    # Torch before 2.5 has no list of what else is data.
    allowing = getattr(torch.serialization, "safe_globals", nullcontext)
    try:
        with allowing(_numpy_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise
        raise _WantsCodeError(wanted[1]) from error


def _read_pickle(path: Path, allow_pickle: bool) -> Any:
    unpickler = pickle.Unpickler if allow_pickle else _DataUnpickler
    with path.open("rb") as file, warnings.catch_warnings():
        # Arrays of numpy 1 name modules that numpy 2 has moved.
        warnings.simplefilter("ignore", DeprecationWarning)
        # latin1 is how Python 3 reads the arrays of Python 2.
        return unpickler(file, encoding="latin1").load()


class _DataUnpickler(pickle.Unpickler):
    """Knows arrays and containers, and nothing that acts."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns what the file names, if it is data."""
        known = {**_numpy_globals(), **_plain_globals()}
        if f"{module}.{name}" not in known:
            raise _WantsCodeError(f"{module}.{name}")
        return known[f"{module}.{name}"]


def _numpy_globals() -> dict[str, Any]:
    """What numpy builds arrays of, under the names of numpy 1 and of numpy 2."""
    # From an array itself, as the module has another name in either.
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    names: dict[str, Any] = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = reconstruct
        names[f"{core}.multiarray.scalar"] = scalar
        names[f"{core}.numeric._frombuffer"] = from_buffer
    return names


def _numpy_allowed() -> list[Callable[..., Any]]:
    """The same for torch, which looks at the names that things have themselves: best metrics and the like are often numpy's numbers."""

    def renamed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return function(*arguments)

        call.__module__, _, call.__qualname__ = name.rpartition(".")
        call.__name__ = call.__qualname__
        return call

    found = [value if isinstance(value, type) else renamed(value, name) for name, value in _numpy_globals().items()]
    return [*found, *{type(np.dtype(code)) for code in np.typecodes["All"]}]


def _plain_globals() -> dict[str, Callable[..., Any]]:
    names: dict[str, Callable[..., Any]] = {"collections.OrderedDict": OrderedDict, "_codecs.encode": _encode}
    for builtins in ("builtins", "__builtin__"):
        names |= {f"{builtins}.{kind.__name__}": kind for kind in (set, frozenset, complex, bytes, bytearray)}
    return names


def _encode(text: str, encoding: str) -> bytes:
    """Of all codecs, the one that pickles of bytes use."""
    if encoding != "latin1":
        raise _WantsCodeError(f"codec {encoding}")
    return text.encode("latin1")
