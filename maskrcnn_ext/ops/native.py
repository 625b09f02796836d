"""Compiled kernels: functions of the libraries built from ``csrc``, which need neither Python nor torch, and whether Triton runs."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from maskrcnn_ext.common.text import first_line

logger = logging.getLogger(__name__)


def function(file: Path, name: str) -> Any:
    """Returns a function of a library. The number at the end of its name changes with its arguments.

    Raises:
        OSError: the library was not built, does not load, or belongs to another release; the message says which.
    """
    if not file.is_file():
        raise OSError(f"{file} was not built: no C++ compiler at installation")
    try:
        return getattr(ctypes.CDLL(str(file)), name)
    except AttributeError:
        raise OSError(f"{file} belongs to another release") from None


def loads(library: Callable[[], object]) -> bool:
    """Whether a module's ``library`` can be loaded."""
    try:
        library()
    except OSError:
        return False
    return True


@functools.cache
def triton_unavailable_reason() -> str | None:
    """Returns why Triton's kernels do not run on the GPU, or None if they do. The first call tries one and logs the reason."""
    try:
        from maskrcnn_ext.ops import sorted_nms_triton

        one = torch.zeros(1, 1, 4, device="cuda")
        sorted_nms_triton.sorted_nms(one, torch.ones(1, 1, dtype=torch.bool, device="cuda"), 0.5)
    except Exception as error:  # of Triton, its compiler, the C compiler or the driver
        reason = f"{type(error).__name__}: {first_line(error)}"
        logger.warning("RoIAlign on the GPU is slower, as Triton does not run here: %s", reason)
        return reason
    return None
