"""Reproducible runs: torch's deterministic algorithms with fixed seeds, and a hash of weights to compare runs by."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.utils import comm
from torch import Tensor, nn

from maskrcnn_ext.common.distributed import unwrap_ddp
from maskrcnn_ext.common.random_state import preserved_random_state
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_REFUSED = re.compile(
    r"^(\S+) does not have a deterministic implementation|Deterministic behavior was enabled", re.MULTILINE
)


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Makes the block compute the same numbers every time, on the same machine with the same number of processes and threads.

    Operations use their deterministic algorithm, and raise if they have none. The random generators are seeded, differently in each
    process; samplers and loader workers draw their seeds from them. Enter this before the model and the loader are built, and before
    anything uses cuBLAS. Settings and generators are restored afterwards.

    Args:
        seed: seed of the run; 0 is used for a negative one, the default of ``train.seed``.

    Raises:
        InputError: an operation in the block has no deterministic algorithm; the message names it.

    Example:
        >>> with deterministic(seed=0):
        ...     first = torch.rand(())
        >>> with deterministic(seed=0):
        ...     bool(first == torch.rand(()))
        True
    """
    if seed < 0:
        logger.info("train.deterministic=true without train.seed: the seed is 0")
        seed = 0
    workspace = os.environ.get(_CUBLAS)
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    try:
        os.environ[_CUBLAS] = workspace if workspace in (":4096:8", ":16:8") else ":4096:8"
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        with preserved_random_state():
            seed += comm.get_rank()
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    except RuntimeError as error:
        known = explain_nondeterminism(error)
        if known is None:
            raise
        raise known from error
    finally:
        cudnn.deterministic, cudnn.benchmark = flags
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        if workspace is None:
            os.environ.pop(_CUBLAS, None)
        else:
            os.environ[_CUBLAS] = workspace


def explain_nondeterminism(error: BaseException) -> InputError | None:
    """Returns a one-line error that names the operation without a deterministic algorithm; None for any other error.

    Example:
        >>> explain_nondeterminism(RuntimeError("out of memory")) is None
        True
    """
    found = _REFUSED.search(str(error))
    if found is None:
        return None
    operation = found[1] or "an operation of cuBLAS"
    return InputError(
        f"train.deterministic=true: {operation} has no deterministic algorithm on this device: choose a part that does not use it, train "
        "on another device, or set train.deterministic=false"
    )


def weights_hash(model: nn.Module) -> str:
    """Returns the SHA-256 of a model's parameters and buffers: their names, shapes, dtypes and bytes. The device does not count.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> weights_hash(model) == weights_hash(model), weights_hash(model) == weights_hash(nn.Linear(2, 1))
        (True, False)
    """
    digest = hashlib.sha256()
    for name, value in sorted(unwrap_ddp(model).state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:  # a module's extra state
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()
