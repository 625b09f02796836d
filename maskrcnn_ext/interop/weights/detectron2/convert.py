"""Checkpoints of Detectron2 and of its model zoo, also under Caffe2's names: which config of ours they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.config.zoo import get_config, list_configs
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Conversion, Converted, model_shapes
from maskrcnn_ext.interop.weights.reading import find_weights, read_checkpoint, shape_of

_SCORES = re.compile(r"(?:.*\.)?cls_score\.weight")
_KEYPOINTS = "roi_heads.keypoint_head.score_lowres.weight"
_PIXELS = "pixel_mean|pixel_std"
_ANCHORS = r"proposal_generator\.anchor_generator\.cell_anchors\.(\d+)"


def convert(path: Path) -> Converted:
    """Finds the shipped config that has a checkpoint's tensors, in name and shape.

    The means and deviations of the pixels are the file's where it has them, as those of the model zoo do. What no tensor tells is the
    config's: where the strides of a ResNet are, thresholds, the size of images.

    Args:
        path: a ``.pkl`` or ``.pth``.

    Raises:
        InputError: the file cannot be read, has no detector, or one that no shipped config has.
    """
    tensors = find_weights(path, read_checkpoint(path))
    is_caffe2 = any(key.endswith("_w") for key in tensors)
    renamed, keys = tensors, {key: key for key in tensors}
    if is_caffe2:
        weights = {key: own for key, own in tensors.items() if not key.endswith("_momentum")}
        try:
            renamed, keys = convert_c2_detectron_names(weights)
        except (
            AssertionError,
            ValueError,
            IndexError,
            RuntimeError,
        ) as error:  # of names and shapes that Caffe2 has not
            raise InputError(
                f"{path}: its keys end as those of Caffe2, and are not those of Detectron ({error or 'two mean the same'})"
            ) from error
    scores = next(filter(_SCORES.fullmatch, renamed), None)
    if scores is None:
        raise InputError(
            f"{path}: no R-CNN of Detectron2: it has no cls_score.weight (train.init_checkpoint takes weights of a "
            "backbone alone as they are)"
        )
    weights = {name: tensor for name, tensor in renamed.items() if not re.fullmatch(f"{_PIXELS}|{_ANCHORS}", name)}
    config, names = _nearest(weights, num_classes=shape_of(str(path), renamed, scores, 2)[0] - 1)
    conversion = Conversion(str(path), tensors)
    for name, key in keys.items():
        if name in names:
            conversion.put(names[name], key, make=lambda _, tensor=renamed[name]: tensor)
    if is_caffe2:
        _as_caffe2(conversion, config, set(names.values()))
    _read_pixels(config, tensors)
    _check_anchors(path, config, tensors)
    conversion.leave(_PIXELS, "the config has it")
    conversion.leave(_ANCHORS, "computed from the config, and the same")
    conversion.leave(r".*_momentum", "the optimizer's")
    for explain in (conversion.leave, conversion.lacks):
        explain(r".*\.num_batches_tracked", "a count of batches, on which no output depends")
    return conversion.finish(config, None)


def _nearest(tensors: Mapping[str, Tensor], num_classes: int) -> tuple[DictConfig, dict[str, str]]:
    """The shipped config with the fewest differences, with the name in its model of every tensor that it has."""
    best: tuple[int, DictConfig, dict[str, str]] | None = None
    names = [name for name in list_configs() if "/" not in name]
    for config_name in names:
        # What has a longer schedule is the same model; ViTDet may need what is not installed.
        if config_name.replace("_1x", "_3x") in set(names) - {config_name}:
            continue
        if "vitdet" in config_name and not any(key.startswith("backbone.net.") for key in tensors):
            continue
        cfg = get_config(config_name)
        cfg.model.roi_heads.num_classes = num_classes
        if "keypoint_head" in cfg.model.roi_heads and _KEYPOINTS in tensors:
            cfg.model.roi_heads.keypoint_head.num_keypoints = tensors[_KEYPOINTS].shape[1:2].numel()
        shapes = model_shapes(cfg)
        places = {key: name for key in tensors if (name := _full_name(key, shapes)) is not None}
        fitting = sum(tuple(tensors[key].shape) == shapes[name] for key, name in places.items())
        differences = len(tensors) + len(shapes) - 2 * fitting
        if best is None or differences < best[0]:
            best = differences, cfg, places
        if differences == 0:
            break
    assert best is not None
    return best[1:]


def _full_name(key: str, shapes: Mapping[str, object]) -> str | None:
    """The name in the model: the same, or the one that ends so, as Caffe2's names say no part; None where there is none or several."""
    if key in shapes:
        return key
    ends = [name for name in shapes if name.endswith(f".{key}")]
    return ends[0] if len(ends) == 1 else None


def _as_caffe2(conversion: Conversion, config: DictConfig, given: set[str]) -> None:
    """Completes what Caffe2 has computed otherwise: statistics that its weights have absorbed, and RoIAlign as it was then."""
    reason = "absorbed by the layer's weight and bias"
    for name, shape in model_shapes(config).items():
        part, _, statistic = name.rpartition(".")
        if name not in given and f"{part}.weight" in given and statistic in ("running_mean", "running_var"):
            identity = (
                torch.zeros(shape) if statistic == "running_mean" else torch.ones(shape) - 1e-5
            )  # the layer adds it
            conversion.fill(name, identity, reason)
    for name in ("pooler", "box_pooler", "mask_pooler", "keypoint_pooler"):
        if name in config.model.roi_heads:
            config.model.roi_heads[name].update(pooler_type="ROIAlign", sampling_ratio=2)


def _read_pixels(config: DictConfig, tensors: Mapping[str, Tensor]) -> None:
    for name in ("pixel_mean", "pixel_std"):
        if name in tensors:
            config.model[name] = [round(value, 4) for value in tensors[name].flatten().tolist()]
    mean = config.model.pixel_mean
    if len(mean) == 3 and mean[0] > mean[2]:  # photographs are brighter in red than in blue
        config.model.input_format = "RGB"
        config.dataloader.train.mapper.image_format = "RGB"


def _check_anchors(path: Path, config: DictConfig, tensors: Mapping[str, Tensor]) -> None:
    ours = list(instantiate(config.model.proposal_generator.anchor_generator).cell_anchors)
    for key, theirs in tensors.items():
        match = re.fullmatch(_ANCHORS, key)
        if match and not _same(theirs, ours, int(match[1])):
            raise InputError(
                f"{path}: {key} is not what the nearest config makes: its anchors have other sizes or ratios"
            )


def _same(theirs: Tensor, ours: list[Tensor], level: int) -> bool:
    return level < len(ours) and theirs.shape == ours[level].shape and torch.allclose(theirs, ours[level], atol=1e-3)
