"""Helpers for distributed training: one decision for all processes, and the model inside DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_ext.errors import InputError

T = TypeVar("T")


def unwrap_ddp(model: nn.Module) -> nn.Module:
    """Returns the model inside ``DistributedDataParallel``, or `model` itself if it is not wrapped.

    Calling the wrapper synchronises all processes; calling the inner model does not.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> unwrap_ddp(model) is model
        True
    """
    inner: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return inner


def decide_on_main(decide: Callable[[], T]) -> T:
    """Calls `decide` on the main process and returns its result on every process.

    Only the main process has evaluation results, but all processes must act alike.

    Raises:
        InputError: on every process, if `decide` raises it.

    Example:
        >>> decide_on_main(lambda: "stop")
        'stop'
    """
    answer: Any = None
    if comm.is_main_process():
        try:
            answer = decide()
        except InputError as error:
            answer = error
    answer = comm.all_gather(answer)[0]
    if isinstance(answer, InputError):
        raise answer
    return answer
