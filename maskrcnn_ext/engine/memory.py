"""How much memory there is, in the words of an error message."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import psutil


def memory_figures(workers: list[int]) -> str:
    """Returns the machine's memory and what this process and its loader workers hold of it, in one line."""
    machine = psutil.virtual_memory()
    held = []
    for pid in workers:
        with contextlib.suppress(psutil.Error):
            held.append(psutil.Process(pid).memory_info().rss)
    parts = [
        f"memory {_gib(machine.total)}, available {_gib(machine.available)}, this process {_gib(psutil.Process().memory_info().rss)}, "
        f"{len(held)} live workers {_gib(sum(held))}"
    ]
    limit = _cgroup_limit()
    if limit is not None:
        parts.append(f"limit of this job (cgroup) {_gib(limit)}")
    if Path("/dev/shm").is_dir():
        parts.append(f"/dev/shm free {_gib(shutil.disk_usage('/dev/shm').free)}")
    return ", ".join(parts)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _cgroup_limit() -> int | None:
    """Bytes that a container or a scheduler allows this job; None for no limit, or where there are no cgroups."""
    root = Path("/sys/fs/cgroup")
    folders = [root]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                folders.insert(0, root / controllers / path.lstrip("/"))
    limits = []
    for folder in (*folders, root / "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                limits.append(int((folder / name).read_text()))
    # Version 1 writes "no limit" as the largest multiple of a page.
    return min((limit for limit in limits if limit < 2**60), default=None)
