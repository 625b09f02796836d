"""Describes the machine and the software that a result was measured with, and how much memory is left."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.cores import usable_cores
from maskrcnn_ext.common.text import plural
from maskrcnn_ext.compat import cpu_instructions

_PACKAGES = (
    "maskrcnn_ext",
    "detectron2",
    "torch",
    "torchvision",
    "numpy",
    "fvcore",
    "pycocotools",
    "omegaconf",
    "Pillow",
)


def package_versions(*more: str) -> dict[str, str | None]:
    """Returns the versions of Python, CUDA, cuDNN and the packages that affect results.

    Args:
        more: further packages, listed if they are installed.

    Example:
        >>> package_versions()["python"] == platform.python_version()
        True
    """
    import torch

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in (*_PACKAGES, *more):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    for package in {"detectron2", "maskrcnn_ext"} - found.keys():  # not installed, but in a folder on the import path
        found[package] = getattr(importlib.import_module(package), "__version__", None)
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {**found, "cuda": torch.version.cuda, "cudnn": str(cudnn) if cudnn else None}


def describe_machine() -> dict[str, Any]:
    """Returns the processor with its matrix instructions, the number of threads, the memory and the GPUs.

    Example:
        >>> describe_machine()["cores"] >= 1
        True
    """
    import torch

    memory = None
    with contextlib.suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "cpu": _processor_name(),
        "instructions": cpu_instructions(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
    }


def _processor_name() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def describe_memory(workers: list[int]) -> str:
    """Returns the machine's memory and how much of it this process and its loader workers use, as one line for an error message.

    Args:
        workers: process ids; those of processes that have ended are skipped.
    """
    import psutil

    machine = psutil.virtual_memory()
    used = []
    for pid in workers:
        with contextlib.suppress(psutil.Error):
            used.append(psutil.Process(pid).memory_info().rss)
    parts = [
        f"memory {_gib(machine.total)}, available {_gib(machine.available)}, this process {_gib(psutil.Process().memory_info().rss)}, "
        f"{plural(len(used), 'live worker')} {_gib(sum(used))}"
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
    """Returns the bytes that a container or a scheduler allows this job; None if there is no limit."""
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
            with contextlib.suppress(OSError, ValueError):  # "max" means no limit
                limits.append(int((folder / name).read_text()))
    # Version 1 of cgroups writes "no limit" as the largest multiple of a page.
    return min((limit for limit in limits if limit < 2**60), default=None)
