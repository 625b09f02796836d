"""Reads many items in threads, and collects the faults of items, so that the others are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from maskrcnn_ext.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
# Pillow releases the interpreter lock while it decodes, and opening files waits for the disk, so a few threads help.
_THREADS = 8


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], faults: list[str] | None = None
) -> list[Result]:
    """Applies a function that reads files to each item in a thread pool; returns the results in order.

    Args:
        function: reads an item.
        items: the items to read.
        faults: see :func:`collected`; items with a fault have no result.
    """

    def read(item: Item) -> list[Result]:
        with collected(faults):
            return [function(item)]
        return []

    with ThreadPoolExecutor(_THREADS) as pool:
        return [result for found in pool.map(read, items) for result in found]


@contextmanager
def collected(faults: list[str] | None) -> Iterator[None]:
    """Adds the message of an InputError that ends the block to `faults`. If that is None, the error passes.

    Example:
        >>> faults = []
        >>> with collected(faults):
        ...     raise InputError("a.txt, line 1: no number")
        >>> faults
        ['a.txt, line 1: no number']
    """
    try:
        yield
    except InputError as error:
        if faults is None:
            raise
        faults.append(str(error))
