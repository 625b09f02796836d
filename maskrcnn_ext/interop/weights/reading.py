"""Reads the weights of a checkpoint of another framework, without running anything that it brings."""

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

# Where frameworks put the weights beside optimizers and the like.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "blobs")


def read_checkpoint(path: Path, *, foreign: str = "") -> Any:
    r"""Reads what ``torch.save`` or ``pickle.dump`` has written.

    Args:
        path: of the file.
        foreign: a pattern of full names, such as ``mmengine\\..*``, of what the file may hold and nobody needs: objects of these become
            empty ones, so that the framework need not be installed and nothing of it runs.

    Raises:
        InputError: there is no such file, it is damaged, or it wants to run code.
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
            wanted = str(error.__cause__)  # the full name of what would run; torch leaves `builtins` out
            wanted = wanted if "." in wanted else f"builtins.{wanted}"
            if not re.fullmatch(foreign, wanted) or any(_name(stub) == wanted for stub in stubs):
                raise InputError(
                    f"checkpoint {path}: wants to run {wanted} while it is read, which can be any program: save its state_dict alone, "
                    "with the framework that it comes from"
                ) from error
            stubs.append(_stub(wanted))


def _stub(name: str) -> Any:
    """A class of that name that takes anything and does nothing."""

    def ignore(*_: Any, **__: Any) -> None:
        return None

    module, _, last = name.rpartition(".")
    own = {
        "__module__": module,
        "__new__": lambda cls, *_, **__: object.__new__(cls),
        "__init__": ignore,
        "__setstate__": ignore,
    }
    return type(last, (), own)


def _name(stub: Any) -> str:
    return f"{stub.__module__}.{stub.__qualname__}"


def find_weights(path: Path, found: Any) -> dict[str, Tensor]:
    """Returns the tensors by key of a checkpoint, wherever in it they are, without the ``module.`` of a distributed model.

    Raises:
        InputError: it holds something else than tensors by key.
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
            f"checkpoint {path}: holds no tensors by name, but {shown}: expected a state_dict, or a dict that has one"
        )
    prefix = "module." if all(key.startswith("module.") for key in weights) else ""
    return {key.removeprefix(prefix): torch.as_tensor(value) for key, value in weights.items()}


def shape_of(source: str, tensors: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Raises:
        InputError: it is not there or has another number of dimensions.
    """
    shape = tuple(tensors[key].shape) if key in tensors else None
    if shape is None or len(shape) != dimensions:
        found = "not there" if shape is None else f"of shape {shape}"
        raise InputError(f"{source}: {key} is {found}, where a tensor of {dimensions} dimensions is expected")
    return shape


def _are_weights(found: Mapping[Any, Any]) -> bool:
    return bool(found) and all(isinstance(key, str) and _is_tensor(value) for key, value in found.items())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub")
