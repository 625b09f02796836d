"""Checks a config without memory for the model, and the data that it names."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskrcnn_ext.common.silence import log_silenced
from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.config.callables import iter_nodes, node_faults, to_plain
from maskrcnn_ext.config.checkpoint_weights import expect_checkpoint
from maskrcnn_ext.config.data_sets import (
    Split,
    class_faults,
    data_set_names,
    fill_counts,
    image_fault,
    known_split,
    map_by_name,
    mask_fault,
    read_split,
)
from maskrcnn_ext.config.file import SECTIONS, key_faults
from maskrcnn_ext.config.settings import add_missing_settings, check_settings
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.fit_check import check_fit, check_pixels

# Detectron2 logs the call that failed, which the fault names as well.
_INSTANTIATE = logging.getLogger("detectron2.config.instantiate")


class ConfigReport(NamedTuple):
    """The result of :func:`check_config`.

    Attributes:
        num_nodes: number of mappings with a ``_target_``.
        num_parameters: number of parameters of the model; 0 if it was not built.
        datasets: names of the data sets that the config uses.
        faults: one line for each fault.
        notes: one line for each count of the model that this package's training script sets to that of the data.
    """

    num_nodes: int
    num_parameters: int
    datasets: list[str]
    faults: list[str]
    notes: list[str]


def check_config(cfg: DictConfig, *, read_data: bool = False, unset_counts: Sequence[str] = ()) -> ConfigReport:
    """Checks targets and their arguments, settings, data sets and class counts; builds the model, the optimizer and the schedule.

    The model is built on torch's meta device, which needs no memory; if that fails, on the CPU.

    Args:
        cfg: a LazyConfig; not changed.
        read_data: whether to read the data sets, to look for their images and to compare their classes; otherwise only classes that are
            known without reading are compared.
        unset_counts: counts of the model that the user has not set, see :func:`.provenance.is_shipped_value`; they follow the data.

    Example:
        ::

            cfg = maskrcnn_ext.get_config("mask_rcnn_r50_fpn_1x.py")
            for fault in check_config(cfg).faults:
                print(fault)
    """
    cfg = copy.deepcopy(cfg)
    faults = [f"the config has no `{section}`" for section in SECTIONS if section not in cfg]
    nodes = [found for section in SECTIONS for found in iter_nodes(to_plain(cfg.get(section)), section)]
    node_errors = [fault for key, node in nodes for fault in node_faults(key, node)]
    faults += node_errors
    if "train" in cfg:
        try:
            check_settings(add_missing_settings(cfg))
            faults += [fault for fault in key_faults(cfg) if fault not in node_errors]
        except InputError as error:
            faults.append(str(error))
    datasets, data_faults = _check_names(cfg)
    notes: list[str] = []
    if not node_errors and not data_faults:
        try:
            notes, data_faults = _check_data(cfg, unset_counts, read_data=read_data)
        except InputError as error:
            data_faults = [str(error)]
    faults += data_faults
    num_parameters = 0
    if not node_errors and "model" in cfg:
        try:
            model = _build_model(cfg)
            num_parameters = sum(parameter.numel() for parameter in model.parameters())
            _build_optimizer(cfg, model)
        except InputError as error:
            faults.append(str(error))
    return ConfigReport(len(nodes), num_parameters, datasets, faults, notes)


def _check_names(cfg: DictConfig) -> tuple[list[str], list[str]]:
    """Returns the names of the data sets, and their faults."""
    known: dict[str, None] = {}
    faults: list[str] = []
    for key, node in iter_nodes(to_plain(cfg.get("dataloader")), "dataloader"):
        if not key.endswith(".dataset"):
            continue
        for name in data_set_names(OmegaConf.select(cfg, key)):
            try:
                ensure_registered(name)
            except InputError as error:
                faults.append(f"{key}.names: {error}")
                continue
            known[name] = None
            if (":" in name or Path(name).exists()) and "get_detection_dataset_dicts" in str(node["_target_"]):
                faults.append(
                    f"{key}.names={name}: only maskrcnn_ext reads this: set {key}._target_=maskrcnn_ext.get_dataset_dicts"
                )
    return list(known), faults


def _check_data(cfg: DictConfig, unset_counts: Sequence[str], *, read_data: bool) -> tuple[list[str], list[str]]:
    """Returns notes on counts that follow the data, and the faults of images and classes."""
    if OmegaConf.select(cfg, "train.match_classes") == "name":
        map_by_name(cfg)
    faults = []
    splits: dict[str, Split | None] = {}
    for part in ("train", "test"):
        try:
            splits[part] = read_split(cfg, part) if read_data else known_split(cfg, part)
        except InputError as error:
            faults.append(str(error))
    for split in splits.values():
        found = image_fault(cfg, split) if split else None
        faults += [found[0]] if found else []
    train = splits.get("train")
    maskless = mask_fault(cfg, train) if train else None
    faults += [maskless] if maskless else []
    notes = fill_counts(cfg, train.classes, unset_counts) if train and train.classes else []
    return notes, [*faults, *class_faults(cfg, train, splits.get("test"))]


def _build_model(cfg: DictConfig) -> nn.Module:
    def build(device: str, cfg: DictConfig) -> nn.Module:
        with torch.device(device):
            model: nn.Module = instantiate(cfg.model)
            check_fit(model)
        if OmegaConf.select(cfg, "model.pixel_mean") is not None:  # on the meta device, the model's own has no values
            pixels = cfg.model
            check_pixels(model, list(pixels.pixel_mean), list(pixels.pixel_std), pixels.get("input_format"))
        return model

    with log_silenced(_INSTANTIATE):
        try:
            return build("meta", cfg)
        except InputError:
            raise
        except Exception:  # a constructor may compute with values, or check the device
            try:
                # Files of pre-trained weights were checked above, and nothing is downloaded.
                return build("cpu", expect_checkpoint(cfg))
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"model cannot be built: {first_line(error)}") from error


def _build_optimizer(cfg: DictConfig, model: nn.Module) -> None:
    """Raises an InputError if the optimizer or the learning-rate schedule cannot be built."""
    with log_silenced(_INSTANTIATE):
        for section in ("optimizer", "lr_multiplier"):
            if section in cfg:
                if section == "optimizer" and OmegaConf.is_dict(cfg.optimizer.get("params")):
                    cfg.optimizer.params.model = model
                try:
                    instantiate(cfg[section])
                except Exception as error:  # any code may run
                    raise InputError(f"{section} cannot be built: {first_line(error)}") from error
