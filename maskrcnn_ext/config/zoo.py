"""The configs that ship with the package: in a wheel they lie inside it, in a checkout beside it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def config_root() -> Path:
    """Returns the folder of the shipped configs."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def list_configs() -> list[str]:
    """Returns the names that :func:`get_config` takes and that can be trained, such as ``mask_rcnn_r50_fpn_1x.py``, sorted."""
    root = config_root()
    names = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(name.as_posix() for name in names if name.parts[0] != "common")


def config_path(name: str) -> Path:
    """Returns the file of a shipped config.

    Args:
        name: path below the shipped configs; ``.py`` may be left out.

    Raises:
        InputError: there is no such config; the message names the nearest ones.
    """
    path = config_root() / (name if name.endswith(".py") else f"{name}.py")
    if not path.is_file():
        near = difflib.get_close_matches(name, list_configs(), n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else "`maskrcnn-ext configs` lists them"
        raise InputError(f"no config {name!r} ships with maskrcnn_ext: {advice}")
    return path


def get_config(name: str) -> DictConfig:
    """Loads a shipped LazyConfig, as ``detectron2.model_zoo.get_config`` does for Detectron2's own.

    Args:
        name: such as ``mask_rcnn_r50_fpn_1x.py`` or ``common/models/mask_rcnn_fpn.py``.

    Raises:
        InputError: there is no such config, or it needs a newer Detectron2.
    """
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(config_path(name)))
