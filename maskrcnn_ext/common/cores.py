"""The CPU cores of this process."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns how many cores this process may use: those of its container or job, not all of the machine.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
