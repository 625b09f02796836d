"""Functions of the libraries that are compiled from ``csrc``; they know neither Python nor torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any


def function(file: Path, name: str) -> Any:
    """Returns a function of a library; its name ends with a number that changes with its arguments.

    Raises:
        OSError: the library was not built, or does not load, or is of another release; the message says which.
    """
    if not file.is_file():
        raise OSError(f"{file} was not built: no C++ compiler at installation")
    try:
        return getattr(ctypes.CDLL(str(file)), name)
    except AttributeError:
        raise OSError(f"{file} is of another release") from None


def loads(library: Callable[[], object]) -> bool:
    """Whether a module's ``library`` is there."""
    try:
        library()
    except OSError:
        return False
    return True
