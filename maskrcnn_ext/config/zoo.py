"""Finds and loads configs: those that ship with the package, and the user's files.

The shipped configs are inside an installed package and beside it in a checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.common.next_command import runs_near
from maskrcnn_ext.common.text import did_you_mean
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def config_root() -> Path:
    """Returns the folder of the shipped configs."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def list_configs() -> list[str]:
    """Returns the names of the trainable shipped configs, sorted.

    Example:
        >>> "mask_rcnn_r50_fpn_1x.py" in list_configs()
        True
    """
    root = config_root()
    names = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(name.as_posix() for name in names if name.parts[0] != "common")


def config_path(name: str) -> Path:
    """Returns the file of a shipped config.

    Args:
        name: path below the shipped configs, with or without ``.py``; or only the last part of it, if one config has it.

    Raises:
        InputError: no config has this name; the message suggests similar ones.

    Example:
        >>> config_path("mask_rcnn_r50_fpn_1x").name, config_path("nuclei").parent.name
        ('mask_rcnn_r50_fpn_1x.py', 'domains')
    """
    file = name if name.endswith(".py") else f"{name}.py"
    if (config_root() / file).is_file():
        return config_root() / file
    known = list_configs()
    same_name = [config for config in known if config.rpartition("/")[2] == file]
    if len(same_name) == 1:
        return config_root() / same_name[0]
    advice = did_you_mean(name, [*known, *(config.rpartition("/")[2] for config in known)])
    raise InputError(
        f"no config {name!r} ships with maskrcnn_ext: {f'{advice}; ' if advice else ''}`maskrcnn-ext configs` lists all {len(known)}"
    )


def find_config(config_file: str) -> str:
    """Returns the path of a config file, which may also be the name of a shipped config such as ``domains/nuclei.py``.

    Raises:
        InputError: no such file exists, and no shipped config has this name; the message lists runs near the path.
    """
    path = Path(config_file)
    if path.is_file():
        return config_file
    if path.is_dir():
        own = f": name {path / 'config.yaml'}" if (path / "config.yaml").is_file() else runs_near(path)
        raise InputError(f"{config_file} is a folder, not a config file{own}")
    if path.is_absolute() or config_file.startswith((".", "~")):
        raise InputError(f"{config_file}: no such file or folder{runs_near(path)}")
    try:
        return str(config_path(config_file))
    except InputError as error:
        raise InputError(f"{error}{runs_near(path)}") from None


def get_config(name: str) -> DictConfig:
    """Loads a shipped LazyConfig, as ``detectron2.model_zoo.get_config`` does for Detectron2's configs.

    Args:
        name: such as ``mask_rcnn_r50_fpn_1x.py`` or ``common/models/mask_rcnn_fpn.py``.

    Raises:
        InputError: no config has this name, or it needs a newer Detectron2.

    Example:
        >>> get_config("mask_rcnn_r50_fpn_1x.py").model.roi_heads.num_classes
        80
    """
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(config_path(name)))


def load_config(config_file: str, overrides: list[str]) -> DictConfig:
    """Loads a LazyConfig for training: adds the missing settings of this package, applies overrides and checks the settings.

    Args:
        config_file: a file, or the name of a shipped config.
        overrides: as for :func:`maskrcnn_ext.config.overrides.apply_overrides`.

    Raises:
        InputError: the config does not exist or cannot be loaded, an override is wrong, a key of the file is one that nothing reads, or a
            setting has a value that it does not accept.

    Example:
        >>> load_config("mask_rcnn_r50_fpn_1x.py", ["train.max_iter=10"]).train.max_iter
        10
    """
    from maskrcnn_ext.config.file import key_faults, read_config_file
    from maskrcnn_ext.config.overrides import apply_overrides
    from maskrcnn_ext.config.settings import add_missing_settings, check_settings

    cfg = add_missing_settings(read_config_file(find_config(config_file)))
    cfg = apply_overrides(cfg, overrides)
    check_settings(cfg)
    for fault in key_faults(cfg):
        raise InputError(fault)
    return cfg
