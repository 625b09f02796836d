"""Loads a config file for training, and checks it: errors in it are one line, and its keys are checked as overrides are."""

from __future__ import annotations

import logging
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig

from maskrcnn_ext.common.silence import log_silenced
from maskrcnn_ext.common.text import did_you_mean, first_line
from maskrcnn_ext.config.callables import find_target, iter_nodes, to_plain, unknown_arguments
from maskrcnn_ext.config.settings import TRAIN
from maskrcnn_ext.config.yaml_file import read_lazy_yaml
from maskrcnn_ext.errors import InputError

# The sections that Detectron2's training script reads. A file may have other names, such as a config that it starts from.
SECTIONS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
# Detectron2's keys of ``train``, beside those of this package. None: any keys.
_STOCK: dict[str, Any] = {
    "output_dir": None,
    "init_checkpoint": None,
    "max_iter": None,
    "amp": {"enabled": None},
    "ddp": None,
    "checkpointer": {"period": None, "max_to_keep": None, "file_prefix": None},
    "eval_period": None,
    "log_period": None,
    "device": None,
}
_YACS = re.compile(r"^(_BASE_|VERSION|MODEL|SOLVER|DATASETS|INPUT|TEST):", re.MULTILINE)
_PACKAGE = Path(__file__).parents[1]


def read_config_file(file: str) -> DictConfig:
    """Loads a LazyConfig.

    Raises:
        InputError: the file cannot be loaded, with the line of the fault; or it is a yacs config.

    Example:
        ::

            cfg = read_config_file("configs/domains/shapes.py")
    """
    path = Path(file)
    if path.suffix in (".yaml", ".yml") and _YACS.search(path.read_text(encoding="utf-8", errors="replace")):
        raise InputError(
            f"{file} is a yacs config, and training needs a LazyConfig: maskrcnn-ext yaml-to-lazy {file} -o {path.with_suffix('.py').name}"
        )
    if path.suffix in (".yaml", ".yml"):
        read_lazy_yaml(path)  # raises for values that PyYAML would read for hours
    try:
        with log_silenced(logging.getLogger("detectron2.config.lazy")):
            cfg = LazyConfig.load(file)
    except InputError:
        raise
    except SyntaxError as error:
        # Detectron2's error has the file, its cause the line.
        found = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
        named = re.search(r"Config file (.*) has syntax error", str(error))
        where = named[1] if named else found.filename or file
        raise InputError(f"{where}, line {found.lineno}: {found.msg}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not a YAML file ({' '.join(str(error).split())})") from error
    except Exception as error:  # a config is a program
        where = next(_own_lines(error), file)
        raise InputError(f"{where}: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(cfg, DictConfig):
        raise InputError(f"{file}: a {type(cfg).__name__}, expected a config with {', '.join(SECTIONS)}")
    return cfg


def _own_lines(error: Exception) -> Iterator[str]:
    """Yields the lines of user files that an error has passed, the innermost first."""
    folders = [*site.getsitepackages(), sysconfig.get_path("stdlib"), sys.prefix, str(_PACKAGE)]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *folders)):
            yield f"{frame.filename}, line {frame.lineno}"


def key_faults(cfg: DictConfig) -> list[str]:
    """Returns one line for each key of a file that nothing reads: arguments that a ``_target_`` does not take, and slips in ``train``.

    Other keys of ``train`` may be the user's own, for hooks and interpolations.

    Example:
        >>> from omegaconf import OmegaConf
        >>> key_faults(OmegaConf.create({"train": {"max_itr": 5}}))
        ['train.max_itr does not exist: did you mean train.max_iter?']
    """
    faults = []
    for section in SECTIONS:
        for key, node in iter_nodes(to_plain(cfg.get(section)), section):
            try:
                faults += unknown_arguments(key, node, find_target(node["_target_"], key))
            except InputError as error:
                faults.append(str(error))
    return faults + list(_train_faults(to_plain(cfg.get("train")), _merged(TRAIN, _STOCK), "train"))


def _train_faults(section: Any, known: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in section.items() if isinstance(section, Mapping) else ():
        if name not in known:
            advice = did_you_mean(str(name), known, count=1, cutoff=0.8)
            if advice:
                yield f"{prefix}.{name} does not exist: {advice.replace('mean ', f'mean {prefix}.')}"
        elif isinstance(known[name], Mapping):
            yield from _train_faults(value, known[name], f"{prefix}.{name}")


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: {**one[name], **other[name]}
        for name in one
        if isinstance(one[name], Mapping) and isinstance(other.get(name), Mapping)
    }
    return {**one, **other, **both}
