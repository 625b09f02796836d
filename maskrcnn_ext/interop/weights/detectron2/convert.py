"""Imports checkpoints of Detectron2 and its model zoo, also with Caffe2's names, by finding the shipped config that fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.common.tensor_files import find_weights
from maskrcnn_ext.config.zoo import get_config, list_configs
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Conversion, Converted, model_shapes
from maskrcnn_ext.interop.weights.reading import read_checkpoint, shape_of

_SCORES = re.compile(r"(?:.*\.)?cls_score\.weight")
_KEYPOINTS = "roi_heads.keypoint_head.score_lowres.weight"
_PIXELS = "pixel_mean|pixel_std"
_ANCHORS = r"proposal_generator\.anchor_generator\.cell_anchors\.(\d+)"


def convert(path: Path) -> Converted:
    """Finds the shipped config whose model has a checkpoint's tensors, by name and shape.

    Mean and standard deviation of the pixels are taken from the file if it contains them, as files of the model zoo do. Anything that does
    not follow from the tensors is the config's: where a ResNet has its strides, thresholds, the size of images.

    Args:
        path: a ``.pkl`` or ``.pth`` file.

    Raises:
        InputError: the file cannot be read, contains no detector, or no shipped config fits.

    Example::

        write_model(convert(Path("model_final_f10217.pkl")), Path("imported"))
    """
    tensors = find_weights(path, read_checkpoint(path))
    is_caffe2 = any(key.endswith("_w") for key in tensors)
    renamed, keys = tensors, {key: key for key in tensors}
    if is_caffe2:
        weights = {key: tensor for key, tensor in tensors.items() if not key.endswith("_momentum")}
        try:
            renamed, keys = convert_c2_detectron_names(weights)
        # Detectron2 raises these for names and shapes that Caffe2's models do not have.
        except (AssertionError, ValueError, IndexError, RuntimeError) as error:
            reason = error or "two keys have one meaning"
            raise InputError(
                f"{path}: its keys end like Caffe2's, but are not those of Detectron ({reason})"
            ) from error
    scores = next(filter(_SCORES.fullmatch, renamed), None)
    if scores is None:
        raise InputError(
            f"{path}: not an R-CNN of Detectron2: cls_score.weight is missing (to use the weights of a backbone only, set "
            "train.init_checkpoint)"
        )
    weights = {name: tensor for name, tensor in renamed.items() if not re.fullmatch(f"{_PIXELS}|{_ANCHORS}", name)}
    config, names = _find_config(weights, num_classes=shape_of(str(path), renamed, scores, 2)[0] - 1)
    conversion = Conversion(str(path), tensors)
    for name, key in keys.items():
        if name in names:
            conversion.put(names[name], key, make=lambda _, tensor=renamed[name]: tensor)
    if is_caffe2:
        _complete_caffe2(conversion, config, set(names.values()))
    _read_pixels(config, tensors)
    _check_anchors(path, config, tensors)
    conversion.ignore(_PIXELS, "part of the config")
    conversion.ignore(_ANCHORS, "computed from the config, and the same")
    conversion.ignore(r".*_momentum", "the optimizer's")
    conversion.ignore_batch_counts()
    return conversion.finish(config, None)


def _find_config(tensors: Mapping[str, Tensor], num_classes: int) -> tuple[DictConfig, dict[str, str]]:
    """Returns the shipped config with the fewest differences, and for each key of the tensors its name in the model."""
    best: tuple[int, DictConfig, dict[str, str]] | None = None
    names = [name for name in list_configs() if "/" not in name]
    has_timm = any(key.startswith("backbone.bottom_up.net.") for key in tensors)
    for config_name in names:
        # A longer schedule trains the same model. ViTDet and timm's networks may need a package that is not installed.
        if config_name.replace("_1x", "_3x") in set(names) - {config_name} or re.search("_lsj_[24]00ep", config_name):
            continue
        if "vitdet" in config_name and not any(key.startswith("backbone.net.") for key in tensors):
            continue
        cfg = get_config(config_name)
        if "pretrained" in cfg.model.backbone.get("bottom_up", {}) and not has_timm:
            continue
        cfg.model.roi_heads.num_classes = num_classes
        if "keypoint_head" in cfg.model.roi_heads and _KEYPOINTS in tensors:
            cfg.model.roi_heads.keypoint_head.num_keypoints = tensors[_KEYPOINTS].shape[1:2].numel()
        shapes = model_shapes(cfg)
        model_names = {key: name for key in tensors if (name := _full_name(key, shapes)) is not None}
        fitting = sum(tuple(tensors[key].shape) == shapes[name] for key, name in model_names.items())
        differences = len(tensors) + len(shapes) - 2 * fitting
        if best is None or differences < best[0]:
            best = differences, cfg, model_names
        if differences == 0:
            break
    assert best is not None
    return best[1:]


def _full_name(key: str, shapes: Mapping[str, object]) -> str | None:
    """Returns the model's name for a key: the key itself, or the only name that ends with it, as Caffe2's keys lack the part."""
    if key in shapes:
        return key
    ends = [name for name in shapes if name.endswith(f".{key}")]
    return ends[0] if len(ends) == 1 else None


def _complete_caffe2(conversion: Conversion, config: DictConfig, given: set[str]) -> None:
    """Adds the statistics of norms that Caffe2 folded into its weights, and sets the RoIAlign that Caffe2 used."""
    reason = "folded into the layer's weight and bias"
    for name, shape in model_shapes(config).items():
        part, _, statistic = name.rpartition(".")
        if name not in given and f"{part}.weight" in given and statistic in ("running_mean", "running_var"):
            # The layer adds 1e-5 to the variance.
            identity = torch.zeros(shape) if statistic == "running_mean" else torch.ones(shape) - 1e-5
            conversion.fill(name, identity, reason)
    for name in ("pooler", "box_pooler", "mask_pooler", "keypoint_pooler"):
        if name in config.model.roi_heads:
            config.model.roi_heads[name].update(pooler_type="ROIAlign", sampling_ratio=2)


def _read_pixels(config: DictConfig, tensors: Mapping[str, Tensor]) -> None:
    """Sets mean, standard deviation and channel order of the pixels as the file has them."""
    for name in ("pixel_mean", "pixel_std"):
        if name in tensors:
            config.model[name] = [round(value, 4) for value in tensors[name].flatten().tolist()]
    mean = config.model.pixel_mean
    if len(mean) == 3 and mean[0] > mean[2]:  # photographs are brighter in red than in blue
        config.model.input_format = "RGB"
        config.dataloader.train.mapper.image_format = "RGB"


def _check_anchors(path: Path, config: DictConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError if the file's anchors differ from the config's."""
    ours = list(instantiate(config.model.proposal_generator.anchor_generator).cell_anchors)
    for key, theirs in tensors.items():
        match = re.fullmatch(_ANCHORS, key)
        if match and not _equal_anchors(theirs, ours, int(match[1])):
            raise InputError(
                f"{path}: {key} differs from the anchors of the nearest config: they have other sizes or ratios"
            )


def _equal_anchors(theirs: Tensor, ours: list[Tensor], level: int) -> bool:
    return level < len(ours) and theirs.shape == ours[level].shape and torch.allclose(theirs, ours[level], atol=1e-3)
