"""Checkpoint files: written whole or not at all, and read by :mod:`maskrcnn_ext.common.tensor_files`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from maskrcnn_ext.common.files import WriteError, atomic_path, remove_partials, write_atomic
from maskrcnn_ext.common.tensor_files import DamagedFileError as DamagedFileError
from maskrcnn_ext.common.tensor_files import read as read


def write(obj: Any, path: Path) -> None:
    """Saves an object with ``torch.save``, whole or not at all; the content is on the disk when this returns.

    Raises:
        WriteError: it cannot be written; the previous file is intact.

    Example:
        >>> write({"model": {}, "iteration": 4}, tmp_path / "model_0000004.pth")
        >>> read(tmp_path / "model_0000004.pth")["iteration"]
        4
    """
    # An open file, because torch would put the temporary name of a path into the archive.
    with _advice_on_full_disk(), atomic_path(path, durable=True) as partial, partial.open("wb") as file:
        torch.save(obj, file)


def write_text(text: str, path: Path) -> None:
    """Writes a small file as :func:`write` does."""
    with _advice_on_full_disk():
        write_atomic(path, text, durable=True)


@contextmanager
def _advice_on_full_disk() -> Iterator[None]:
    try:
        yield
    except WriteError as error:
        raise WriteError(
            f"{error}; the previous file is intact: free some space, lower train.checkpointer.max_to_keep or change train.output_dir, "
            "then continue with --resume"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of writers that were killed, also those named by version 0.1.0."""
    remove_partials(folder)
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)
