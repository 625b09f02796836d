"""What a result was measured with: the versions of the packages, and the machine."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

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


def versions(*more: str) -> dict[str, str | None]:
    """Returns the versions of Python and of what a model is made with; and those of more packages, where they are installed."""
    import torch

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in (*_PACKAGES, *more):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    for package in {"detectron2", "maskrcnn_ext"} - found.keys():  # used from a folder on the import path
        found[package] = getattr(importlib.import_module(package), "__version__", None)
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return {**found, "cuda": torch.version.cuda, "cudnn": str(cudnn) if cudnn else None}


def machine() -> dict[str, Any]:
    """Returns the processor with its instructions for matrices, the memory and the GPUs."""
    import torch

    memory = None
    with contextlib.suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "cpu": _processor(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _instructions() -> list[str]:
    """Those of the processor that products of matrices are quick with."""
    import torch

    asked = {
        "AVX2": "_is_avx2_supported",
        "AVX-512": "_is_avx512_supported",
        "AVX-512 VNNI": "_is_vnni_supported",
        "AVX-512 BF16": "_is_avx512_bf16_supported",
        "AMX": "_is_amx_tile_supported",
    }
    return [name for name, question in asked.items() if getattr(torch.cpu, question, bool)()]
