"""Writes manifest.json: the versions, commit, configuration, data and machine that produced a run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.engine.data_hash import hash_data_sets
from maskrcnn_ext.engine.machine import describe_machine, package_versions

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from maskrcnn_ext.data.registry.classes import Classes

# Variables that affect results or the use of the machine and are not part of a config.
_VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES|CUBLAS_.*|NVIDIA_TF32_OVERRIDE|DETECTRON2_.*|MASKRCNN_EXT_.*"
)


def write_manifest(cfg: DictConfig, path: Path, *, world_size: int = 1, classes: Classes | None = None) -> None:
    """Writes the manifest of a run that starts. The manifest of an earlier run in the same folder is kept under "earlier".

    Args:
        cfg: the configuration, before the training puts its model into it.
        path: the file to write.
        world_size: number of training processes.
        classes: of the model's outputs; None if they are unknown.

    Raises:
        WriteError: the file cannot be written.
    """
    earlier = _read(path)
    before = [*earlier.pop("earlier", []), earlier] if earlier else []
    manifest = make_manifest(cfg, world_size=world_size)
    _write_json({**manifest, "classes": classes and classes.state_dict(), "earlier": before}, path)


def finish_manifest(path: Path, status: str) -> None:
    """Adds the time, the cost and the status of the end of a run to its manifest.

    The cost is that of this process and of its finished workers: CPU time in seconds, and the largest resident memory of any in bytes.

    Args:
        path: the manifest.
        status: one line, such as "finished" or "preempted".
    """
    _write_json({**_read(path), "ended": _now(), "status": status, **_cost()}, path)


def make_manifest(cfg: DictConfig, *, world_size: int = 1) -> dict[str, Any]:
    """Returns the content of the manifest, without earlier runs."""
    return {
        "started": _now(),
        "command": list(sys.argv),
        "world_size": world_size,
        "config_hash": config_hash(cfg),
        "data": hash_data_sets(cfg),
        "versions": package_versions(),
        "git": _git_state(Path.cwd()),
        "machine": describe_machine(),
        "environment": {key: value for key, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(key)},
    }


def config_hash(cfg: DictConfig) -> str:
    """Returns the SHA-256 of a configuration. The order of keys and ``train.output_dir`` do not count.

    Example:
        >>> from omegaconf import OmegaConf
        >>> config_hash(OmegaConf.create({"a": 1, "b": 2})) == config_hash(OmegaConf.create({"b": 2, "a": 1}))
        True
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    if isinstance(plain.get("train"), dict):
        plain["train"] = {key: value for key, value in plain["train"].items() if key != "output_dir"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=_stable_text).encode()).hexdigest()


def _stable_text(value: Any) -> str:
    """Returns text that is the same in every process: functions and classes by name, other objects without their address."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Returns root, commit and whether tracked files differ from it of the repository around `folder`; None without a repository."""

    def run_git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        commit, root = run_git("rev-parse", "HEAD"), run_git("rev-parse", "--show-toplevel")
        return {"root": root, "commit": commit, "dirty": bool(run_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _cost() -> dict[str, float]:
    """Returns the CPU time and the largest resident memory of this process and its finished children; {} on Windows."""
    try:
        import resource
    except ImportError:
        return {}
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in usages), 1),
        "peak_memory_bytes": unit * max(usage.ru_maxrss for usage in usages),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    """Returns the manifest at `path`; {} if it does not exist or is truncated."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(manifest: dict[str, Any], path: Path) -> None:
    write_atomic(path, json.dumps(manifest, indent=1) + "\n")
