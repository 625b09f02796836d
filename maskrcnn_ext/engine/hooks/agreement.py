"""One decision for all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from detectron2.utils import comm

from maskrcnn_ext.errors import InputError

T = TypeVar("T")


def decided_on_main(decide: Callable[[], T]) -> T:
    """Calls `decide` on the main process, which alone has the results of evaluations, and returns what it returned on all of them.

    Raises:
        InputError: on all of them, where `decide` has raised it.
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
