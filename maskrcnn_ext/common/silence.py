"""Silences a logger for the time of a block."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_silenced(logger: logging.Logger) -> Iterator[None]:
    """Drops the messages of a logger below CRITICAL, such as those of a call whose error is reported otherwise.

    Example:
        >>> with log_silenced(logging.getLogger("noisy")):
        ...     logging.getLogger("noisy").error("not shown")
    """
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
