"""Does a config hold together? Asked without reading any data and without memory for the model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskrcnn_ext.config import settings
from maskrcnn_ext.config.callables import node_faults, nodes
from maskrcnn_ext.config.value_kinds import plain
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.fit_check import check_fit

# What Detectron2's training script reads.
SECTIONS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


class Findings(NamedTuple):
    """What a config is, and a line for each of its faults."""

    calls: int
    parameters: int
    data: list[str]
    faults: list[str]


def check_config(cfg: DictConfig) -> Findings:
    """Checks the targets and their arguments, our keys, the data sets' names and classes; builds the model, the optimizer and the schedule.

    The model is built on torch's meta device, which has shapes and no memory; on the CPU where that is not possible.

    Args:
        cfg: a LazyConfig; not changed.
    """
    cfg = copy.deepcopy(cfg)
    faults = [f"the config has no `{section}`" for section in SECTIONS if section not in cfg]
    calls = list(nodes(plain(cfg)))
    broken = [fault for where, node in calls for fault in node_faults(where, node)]
    faults += broken
    if "train" in cfg:
        try:
            settings.check(settings.complete(cfg))
        except InputError as error:
            faults.append(str(error))
    data, wrong = _check_data(cfg)
    faults += wrong
    parameters = 0
    if not broken and "model" in cfg:
        try:
            model = _build_model(cfg)
            parameters = sum(parameter.numel() for parameter in model.parameters())
            _build_rest(cfg, model)
        except InputError as error:
            faults.append(str(error))
    return Findings(len(calls), parameters, data, faults)


def _check_data(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """The names of the data sets, and their faults."""
    known, faults = [], []
    for where, node in nodes(plain(cfg.get("dataloader")), "dataloader"):
        if "names" not in node or not where.endswith(".dataset"):
            continue
        names = plain(OmegaConf.select(cfg, f"{where}.names"))
        for name in [names] if isinstance(names, str) else names:
            try:
                ensure_registered(name)
            except InputError as error:
                faults.append(f"{where}.names: {error}")
                continue
            if name not in known:
                known.append(name)
            faults += [f"{where}.names={name}: {fault}" for fault in _misfits(cfg, name)]
            if ":" in name and "get_detection_dataset_dicts" in str(node["_target_"]):
                faults.append(
                    f"{where}.names={name}: only maskrcnn_ext reads this: set {where}._target_=maskrcnn_ext.get_dataset_dicts"
                )
    return known, faults


def _misfits(cfg: DictConfig, name: str) -> Iterator[str]:
    """What the model has another number of than the data set, as far as that is known without reading it."""
    metadata = MetadataCatalog.get(name)
    for key, told in (("num_classes", "thing_classes"), ("keypoint_head.num_keypoints", "keypoint_names")):
        number, names = OmegaConf.select(cfg, f"model.roi_heads.{key}"), metadata.get(told)
        if number is not None and names and number != len(names):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            yield f"has {len(names)} {key.rpartition('num_')[2]} ({shown}): set model.roi_heads.{key}={len(names)}, not {number}"


def _build_model(cfg: DictConfig) -> nn.Module:
    with _quiet():
        try:
            return _built(cfg, "meta")
        except InputError:
            raise
        except Exception:  # a part may compute with numbers when it is built, or check a device
            try:
                return _built(cfg, "cpu")
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"model cannot be built: {_line(error)}") from error


def _built(cfg: DictConfig, device: str) -> nn.Module:
    with torch.device(device):
        model: nn.Module = instantiate(cfg.model)
        check_fit(model)
    return model


def _build_rest(cfg: DictConfig, model: nn.Module) -> None:
    with _quiet():
        for section in ("optimizer", "lr_multiplier"):
            if section in cfg:
                if section == "optimizer" and OmegaConf.is_dict(cfg.optimizer.get("params")):
                    cfg.optimizer.params.model = model
                try:
                    instantiate(cfg[section])
                except Exception as error:  # any code may run
                    raise InputError(f"{section} cannot be built: {_line(error)}") from error


def _line(error: BaseException) -> str:
    reason: Any = str(error).strip().splitlines()[:1]
    return reason[0] if reason else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Detectron2 logs which call failed; the fault says so already."""
    logger = logging.getLogger("detectron2.config.instantiate")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
