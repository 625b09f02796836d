"""Reads the weights in a checkpoint of another framework, without running code that the file contains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_ext.engine.checkpoint import files
from maskrcnn_ext.errors import InputError

# The keys under which frameworks save the weights, beside optimizers and the like.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "blobs")


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


def _are_weights(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(key, str) and _is_tensor(value) for key, value in found.items())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub")
