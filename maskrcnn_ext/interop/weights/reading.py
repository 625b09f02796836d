"""Reads the weights in a checkpoint of another framework, without running code that the file contains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_ext.common import tensor_files as files
from maskrcnn_ext.errors import InputError


def read_checkpoint(path: Path, *, foreign: str = "") -> Any:
    r"""Returns what ``torch.save`` or ``pickle.dump`` has written to a file.

    Args:
        path: the file.
        foreign: a pattern for full names of classes and functions, such as ``mmengine\\..*``, whose objects are not needed. They are
            replaced by empty objects, so the framework need not be installed and none of its code runs.

    Raises:
        InputError: the file is missing or damaged, or would run code while it is read.
    """
    stubs: list[Any] = []
    allowing = getattr(torch.serialization, "safe_globals", nullcontext)  # since torch 2.5
    while True:
        try:
            with allowing(stubs):
                return files.read(path)
        except files.DamagedFileError:
            raise
        except InputError as error:
            if isinstance(error.__cause__, OSError):
                raise
            wanted = str(error.__cause__)  # full name of the function that would run; torch omits `builtins`
            wanted = wanted if "." in wanted else f"builtins.{wanted}"
            if not re.fullmatch(foreign, wanted) or any(_name(stub) == wanted for stub in stubs):
                raise InputError(
                    f"checkpoint {path}: would run {wanted} while it is read, which can be any code: save only its state_dict, with the "
                    "framework that wrote it"
                ) from error
            stubs.append(_stub(wanted))


def _stub(name: str) -> Any:
    """Returns an empty class of that full name, which accepts any arguments."""

    def ignore(*_: Any, **__: Any) -> None:
        return None

    module, _, last = name.rpartition(".")
    members = {
        "__module__": module,
        "__new__": lambda cls, *_, **__: object.__new__(cls),
        "__init__": ignore,
        "__setstate__": ignore,
    }
    return type(last, (), members)


def _name(stub: Any) -> str:
    """Returns the full name of a class."""
    return f"{stub.__module__}.{stub.__qualname__}"


def shape_of(source: str, tensors: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Raises:
        InputError: it is missing or has another number of dimensions.

    Example:
        >>> shape_of("a.pth", {"fc.bias": torch.zeros(2)}, "fc.bias", 1)
        (2,)
    """
    shape = tuple(tensors[key].shape) if key in tensors else None
    if shape is None or len(shape) != dimensions:
        found = "is missing" if shape is None else f"has shape {shape}"
        raise InputError(f"{source}: {key} {found}, expected a tensor of {dimensions} dimensions")
    return shape
