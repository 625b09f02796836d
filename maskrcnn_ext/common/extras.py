"""Imports optional packages, with a one-line error that names the extra to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from maskrcnn_ext.errors import InputError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Imports an optional module.

    Args:
        module: its import path, such as ``"h5py"`` or ``"onnxruntime.quantization"``.
        extra: the extra of this package that installs it.
        purpose: the purpose of the module, as the first words of the error, such as ``"reading Keras weights"``.

    Returns:
        The module.

    Raises:
        InputError: the module or a module that it imports is missing.

    Example:
        >>> require("json", extra="none", purpose="this example").dumps([1])
        '[1]'
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else f"{module} ({error})"
        raise InputError(f'{purpose} needs {missing}: pip install "maskrcnn_ext[{extra}]"') from error
