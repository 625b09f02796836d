"""Reads the files of each data set once while a command runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from maskrcnn_ext.data.formats.records import DataSet

_MOST_OBJECTS = 200_000  # of a data set; larger ones are read again, because a copy would take much memory

# The data sets that were read, by the identity of their source, which is kept so that no other object gets it.
_Reads = dict[int, tuple[object, bytes]]
_reads: ContextVar[_Reads | None] = ContextVar("reads", default=None)


@contextmanager
def read_data_sets_once() -> Iterator[None]:
    """Within this context each data set is read once. A training reads one for its plan, its loader and each evaluation.

    Every caller gets a copy. Files that change within the context are not read again.

    Example::

        with read_data_sets_once():
            load_dataset("nuclei_train"), load_dataset("nuclei_train")  # the files are read once
    """
    token = _reads.set({}) if _reads.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _reads.reset(token)


def read_once(source: object, read: Callable[[], DataSet]) -> DataSet:
    """Returns what `read` returns for a source, or a copy of it within :func:`read_data_sets_once`."""
    reads = _reads.get()
    if reads is None:
        return read()
    if id(source) in reads:
        copy: DataSet = pickle.loads(reads[id(source)][1])
        return copy
    data = read()
    if sum(len(record.annotations) for record in data.images) <= _MOST_OBJECTS:
        reads[id(source)] = source, pickle.dumps(data, pickle.HIGHEST_PROTOCOL)
    return data
