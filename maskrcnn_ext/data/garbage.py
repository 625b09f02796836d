"""Building millions of small objects without Python's cyclic garbage collector looking through them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keeps the collector from running inside the block; reading a large annotation file takes a third less time so.

    Objects that nothing refers to are freed as always: only cycles wait, and parsed annotations have none.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
