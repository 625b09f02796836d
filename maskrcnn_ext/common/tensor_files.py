"""Reads files of tensors without running code that they contain: files of torch, and pickles of arrays."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.errors import InputError

_ZIP = b"PK\x03\x04"
# Files of torch before 1.6 start with this pickled number.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# The keys under which frameworks save the weights, beside optimizers and the like.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "blobs")
_ALLOW_PICKLE = "if you trust its source, set train.loading.allow_pickle=true"


class DamagedFileError(InputError):
    """A file is truncated, corrupt, or of another format."""


def read(path: Path, *, allow_pickle: bool = False, advice: str = _ALLOW_PICKLE) -> Any:
    """Reads a file of ``torch.save`` or ``pickle.dump``; the format is recognised by the content, not by the name.

    The checksum of every record in a file of torch is verified (files of torch before 1.6 have none). Pickles, such as those of
    Detectron2's model zoo, may contain NumPy arrays and plain containers.

    Args:
        path: a local file.
        allow_pickle: whether the file may run code while it is read.
        advice: end of the error's sentence if it may not and wants to.

    Raises:
        DamagedFileError: the file is truncated, corrupt, empty, or of another format.
        InputError: the file does not exist, or it needs to run code and may not.
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
            f"checkpoint {path}: wants to run {error} while it is read, which can be any program: {advice}"
        ) from error
    except Exception as error:  # damaged bytes make the readers raise errors of many types
        reason = first_line(error)[:100]
        kind = "truncated or corrupt" if head.startswith((_ZIP, b"\x80")) else "neither a file of torch nor a pickle"
        raise DamagedFileError(
            f"checkpoint {path}: {kind} ({type(error).__name__}: {reason}): copy or download it again"
        ) from error


def find_weights(path: Path, found: Any) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint by key, without the prefix ``module.`` of a distributed model.

    Args:
        path: the file, for messages.
        found: the content of the file: a state dict, or nested dicts that contain one.

    Raises:
        InputError: it contains no tensors by key.

    Example:
        >>> find_weights(Path("a.pth"), {"model": {"module.fc.bias": torch.zeros(2)}})
        {'fc.bias': tensor([0., 0.])}
    """
    weights = found
    while isinstance(weights, Mapping) and not _are_weights(weights):
        inner = next((weights[name] for name in _WRAPPERS if isinstance(weights.get(name), Mapping)), None)
        if inner is None:
            break
        weights = inner
    if isinstance(weights, torch.nn.Module) or not isinstance(weights, Mapping) or not _are_weights(weights):
        shown = (
            f"the keys {', '.join(map(str, list(weights)[:5]))}"
            if isinstance(weights, Mapping)
            else type(weights).__name__
        )
        raise InputError(
            f"checkpoint {path}: contains {shown} instead of tensors by name: expected a state_dict, or a dict that contains one"
        )
    prefix = "module." if all(key.startswith("module.") for key in weights) else ""
    return {key.removeprefix(prefix): torch.as_tensor(value) for key, value in weights.items()}


def _are_weights(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(key, str) and _is_tensor(value) for key, value in found.items())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub")


class _WantsCodeError(Exception):
    """A file names a function or class that is not data; the message is its full name."""


def _check_records(path: Path) -> None:
    """Verifies the checksums of a zip archive. Torch writes them, but does not verify them when it reads."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"checksum of {broken} is wrong")


def _read_torch(path: Path, allow_pickle: bool) -> Any:
    if allow_pickle:
        return torch.load(path, map_location="cpu", weights_only=False)
    # Torch before 2.5 has no safe_globals.
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
        # Arrays of NumPy 1 name modules that NumPy 2 has moved.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Python 3 reads arrays that Python 2 pickled with the encoding latin1.
        return unpickler(file, encoding="latin1").load()


class _DataUnpickler(pickle.Unpickler):
    """Loads arrays and containers only; raises if a pickle names any other function or class."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the class or function of this name if it only builds data."""
        known = {**_numpy_globals(), **_plain_globals()}
        if f"{module}.{name}" not in known:
            raise _WantsCodeError(f"{module}.{name}")
        return known[f"{module}.{name}"]


def _numpy_globals() -> dict[str, Any]:
    """Returns the functions and classes that build NumPy arrays, by their names in NumPy 1 and 2."""
    # Taken from an array, because the module that defines them has moved between versions.
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
    """Returns the same for torch, which compares the names of the objects themselves. Best metrics are often NumPy numbers."""

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
    """Encodes with latin1, the only codec that pickled bytes use."""
    if encoding != "latin1":
        raise _WantsCodeError(f"codec {encoding}")
    return text.encode("latin1")
