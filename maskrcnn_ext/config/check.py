"""Checks a config without reading data and without memory for the model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskrcnn_ext.common.text import first_line, plural
from maskrcnn_ext.config.callables import iter_nodes, node_faults, to_plain
from maskrcnn_ext.config.settings import add_missing_settings, check_settings
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.fit_check import check_fit

# The sections that Detectron2's training script reads.
SECTIONS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


class ConfigReport(NamedTuple):
    """The result of :func:`check_config`.

    Attributes:
        num_nodes: number of mappings with a ``_target_``.
        num_parameters: number of parameters of the model; 0 if it was not built.
        datasets: names of the data sets that the config uses.
        faults: one line for each fault.
    """

    num_nodes: int
    num_parameters: int
    datasets: list[str]
    faults: list[str]


def check_config(cfg: DictConfig) -> ConfigReport:
    """Checks targets and their arguments, settings, data sets and class counts; builds the model, the optimizer and the schedule.

    The model is built on torch's meta device, which needs no memory; if that fails, on the CPU.

    Args:
        cfg: a LazyConfig; not changed.

    Example:
        ::

            cfg = maskrcnn_ext.get_config("mask_rcnn_r50_fpn_1x.py")
            for fault in check_config(cfg).faults:
                print(fault)
    """
    cfg = copy.deepcopy(cfg)
    faults = [f"the config has no `{section}`" for section in SECTIONS if section not in cfg]
    nodes = list(iter_nodes(to_plain(cfg)))
    node_errors = [fault for key, node in nodes for fault in node_faults(key, node)]
    faults += node_errors
    if "train" in cfg:
        try:
            check_settings(add_missing_settings(cfg))
        except InputError as error:
            faults.append(str(error))
    datasets, data_faults = _check_datasets(cfg)
    faults += data_faults
    num_parameters = 0
    if not node_errors and "model" in cfg:
        try:
            model = _build_model(cfg)
            num_parameters = sum(parameter.numel() for parameter in model.parameters())
            _build_optimizer(cfg, model)
        except InputError as error:
            faults.append(str(error))
    return ConfigReport(len(nodes), num_parameters, datasets, faults)


def count_faults(name: str, *, num_classes: int | None, num_keypoints: int | None) -> Iterator[str]:
    """Yields one line for each count of the model that differs from the data set.

    Counts that are unknown without reading the data set are skipped.

    Args:
        name: a data set; one without metadata is skipped.
        num_classes: the model's number of classes; None if unknown.
        num_keypoints: the model's number of keypoints; None if it has no keypoint head.

    Example:
        >>> list(count_faults("coco_2017_val", num_classes=1, num_keypoints=None))
        ['model.roi_heads.num_classes=1, but coco_2017_val has 80 classes (person, bicycle, car, ...): set model.roi_heads.num_classes=80']
    """
    if name not in MetadataCatalog.list():
        return
    metadata = MetadataCatalog.get(name)
    for key, count, names, noun in (
        ("num_classes", num_classes, metadata.get("thing_classes"), "class"),
        ("keypoint_head.num_keypoints", num_keypoints, metadata.get("keypoint_names"), "keypoint"),
    ):
        if count is not None and names and count != len(names):
            key = f"model.roi_heads.{key}"
            examples = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
            found = plural(len(names), noun, "classes" if noun == "class" else None)
            yield f"{key}={count}, but {name} has {found} ({examples}): set {key}={len(names)}"


def _check_datasets(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """Returns the names of the data sets, and their faults."""
    known: list[str] = []
    faults: list[str] = []
    heads = "model.roi_heads"
    num_classes = OmegaConf.select(cfg, f"{heads}.num_classes")
    num_keypoints = OmegaConf.select(cfg, f"{heads}.keypoint_head.num_keypoints")
    for key, node in iter_nodes(to_plain(cfg.get("dataloader")), "dataloader"):
        if "names" not in node or not key.endswith(".dataset"):
            continue
        names = to_plain(OmegaConf.select(cfg, f"{key}.names"))
        for name in [names] if isinstance(names, str) else names:
            try:
                ensure_registered(name)
            except InputError as error:
                faults.append(f"{key}.names: {error}")
                continue
            if name not in known:
                known.append(name)
                faults += count_faults(name, num_classes=num_classes, num_keypoints=num_keypoints)
            if (":" in name or Path(name).exists()) and "get_detection_dataset_dicts" in str(node["_target_"]):
                faults.append(
                    f"{key}.names={name}: only maskrcnn_ext reads this: set {key}._target_=maskrcnn_ext.get_dataset_dicts"
                )
    return known, faults


def _build_model(cfg: DictConfig) -> nn.Module:
    def build(device: str) -> nn.Module:
        with torch.device(device):
            model: nn.Module = instantiate(cfg.model)
            check_fit(model)
        return model

    with _instantiate_log_silenced():
        try:
            return build("meta")
        except InputError:
            raise
        except Exception:  # a constructor may compute with values, or check the device
            try:
                return build("cpu")
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"model cannot be built: {first_line(error)}") from error


def _build_optimizer(cfg: DictConfig, model: nn.Module) -> None:
    """Raises an InputError if the optimizer or the learning-rate schedule cannot be built."""
    with _instantiate_log_silenced():
        for section in ("optimizer", "lr_multiplier"):
            if section in cfg:
                if section == "optimizer" and OmegaConf.is_dict(cfg.optimizer.get("params")):
                    cfg.optimizer.params.model = model
                try:
                    instantiate(cfg[section])
                except Exception as error:  # any code may run
                    raise InputError(f"{section} cannot be built: {first_line(error)}") from error


@contextmanager
def _instantiate_log_silenced() -> Iterator[None]:
    """Silences Detectron2's log of the call that failed, because the fault already names it."""
    logger = logging.getLogger("detectron2.config.instantiate")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
