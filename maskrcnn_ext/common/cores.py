"""The CPU cores of this process."""

from __future__ import annotations

import math
import os
from pathlib import Path

# Quota and period of a container's CPU time, in microseconds: Linux, cgroup version 2.
_CONTAINER = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(container: Path = _CONTAINER) -> int:
    """Returns how many cores this process may use: those of its container or job, not all of the machine.

    Args:
        container: file with the limit of the container, which allows a share of all cores' time rather than some cores; it may be missing.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = container.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no file; "max" for no limit
        return cores
