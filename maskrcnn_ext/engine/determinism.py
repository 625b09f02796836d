"""The same numbers twice over: torch's deterministic algorithms and fixed seeds for a run, and a hash that tells weights apart."""

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
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_ext.common.random_state import get_random_state, set_random_state
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_REFUSED = re.compile(
    r"^(\S+) does not have a deterministic implementation|Deterministic behavior was enabled", re.MULTILINE
)


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Makes what runs inside give the same numbers every time on the same machine, with the same number of processes and threads.

    Operations take their deterministic form, and one that has none is an error. The generators are seeded, of each process with another
    seed; the seeds of samplers and loader workers are drawn from them. To be entered before the model and the loader are built, and before
    anything has used cuBLAS. Afterwards settings and generators are as they were.

    Args:
        seed: of the run; negative, as ``train.seed`` is by default: 0.

    Raises:
        InputError: an operation inside has no deterministic form; the message names it.
    """
    if seed < 0:
        logger.info("train.deterministic=true without train.seed: the seed is 0")
        seed = 0
    generators, workspace = get_random_state(), os.environ.get(_CUBLAS)
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    try:
        os.environ[_CUBLAS] = workspace if workspace in (":4096:8", ":16:8") else ":4096:8"
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        seed += comm.get_rank()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    except RuntimeError as error:
        known = explain(error)
        if known is None:
            raise
        raise known from error
    finally:
        set_random_state(generators)
        cudnn.deterministic, cudnn.benchmark = flags
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        if workspace is None:
            os.environ.pop(_CUBLAS, None)
        else:
            os.environ[_CUBLAS] = workspace


def explain(error: BaseException) -> InputError | None:
    """Returns in one line which operation torch has refused because it has no deterministic form; None for any other error."""
    found = _REFUSED.search(str(error))
    if found is None:
        return None
    operation = found[1] or "an operation of cuBLAS"
    return InputError(
        f"train.deterministic=true: {operation} has no deterministic form on this device: choose a part that does without it, train on "
        f"another device, or set train.deterministic=false"
    )


def weights_hash(model: nn.Module) -> str:
    """Returns the SHA-256 of a model's parameters and buffers: their names, shapes, types and bytes, on whatever device they are."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    digest = hashlib.sha256()
    for name, value in sorted(inner.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:  # what a module gives as its extra state
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()
