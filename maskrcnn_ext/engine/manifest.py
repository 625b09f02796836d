"""What a run was made from, beside its results: versions, commit, configuration, data and machine, in manifest.json."""

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

from maskrcnn_ext.engine.data_hash import hash_data_sets
from maskrcnn_ext.engine.machine import describe_machine, package_versions

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What changes numbers or the machine's use without standing in a config.
_VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS)_NUM_THREADS|CUDA_VISIBLE_DEVICES|CUBLAS_.*|NVIDIA_TF32_OVERRIDE|DETECTRON2_.*|MASKRCNN_EXT_.*"
)


def write_manifest(cfg: DictConfig, path: Path, *, world_size: int = 1) -> None:
    """Writes the manifest of a run that begins. That of an earlier run in the same folder, which this one may resume, is kept inside.

    Args:
        cfg: the configuration, before the training puts its model into it.
        path: of the file.
        world_size: how many processes train.
    """
    earlier = _read(path)
    before = [*earlier.pop("earlier", []), earlier] if earlier else []
    _write(path, {**make_manifest(cfg, world_size=world_size), "earlier": before})


def finish_manifest(path: Path, status: str) -> None:
    """Adds to a manifest when and how its run ended.

    Args:
        path: of the file.
        status: one line, such as "finished" or the reason why not.
    """
    _write(path, {**_read(path), "ended": _now(), "status": status})


def make_manifest(cfg: DictConfig, *, world_size: int = 1) -> dict[str, Any]:
    """Returns what :func:`write_manifest` writes of this run."""
    return {
        "started": _now(),
        "command": list(sys.argv),
        "world_size": world_size,
        "config_hash": config_hash(cfg),
        "data": hash_data_sets(cfg),
        "versions": package_versions(),
        "git": _git(Path.cwd()),
        "machine": describe_machine(),
        "environment": {key: value for key, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(key)},
    }


def config_hash(cfg: DictConfig) -> str:
    """Returns the SHA-256 of a configuration.

    The order of its keys does not count, nor does ``train.output_dir``, which says where and not what.
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    if isinstance(plain.get("train"), dict):
        plain["train"] = {key: value for key, value in plain["train"].items() if key != "output_dir"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> str:
    """A text that is the same in every process: functions and classes by name, other objects without their address."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _git(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository that `folder` is in, and whether tracked files differ from it; None where there is none."""

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        commit, root = ask("rev-parse", "HEAD"), ask("rev-parse", "--show-toplevel")
        return {"root": root, "commit": commit, "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    """The manifest at `path`; {} where there is none, or what is there was cut off."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, manifest: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
