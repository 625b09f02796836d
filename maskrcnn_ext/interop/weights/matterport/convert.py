"""Weights of Keras's Mask R-CNN (Matterport, .h5) for Detectron2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Conversion, Converted
from maskrcnn_ext.interop.weights.matterport.layers import BLOCKS, layer_names, map_layers
from maskrcnn_ext.interop.weights.matterport.lazy_config import build_config
from maskrcnn_ext.interop.weights.matterport.settings import read_settings

_LAYERS = set().union(*map(layer_names, BLOCKS))
# Setting -> the weight that tells it, and along which axis.
_TOLD_BY = {
    "NUM_CLASSES": ("mrcnn_class_logits/kernel", 1),
    "IMAGE_CHANNEL_COUNT": ("conv1/kernel", 2),
    "TOP_DOWN_PYRAMID_SIZE": ("fpn_c5p5/kernel", 3),
    "FPN_CLASSIF_FC_LAYERS_SIZE": ("mrcnn_class_conv1/kernel", 3),
    "POOL_SIZE": ("mrcnn_class_conv1/kernel", 0),
}


def convert(path: Path, *, config: Path | None = None) -> Converted:
    """Converts a Mask R-CNN that Keras has saved.

    Args:
        path: an .h5 file of ``model.save_weights`` or ``model.save``.
        config: the settings that it was trained with: a .py with a subclass of Matterport's ``Config``, which is read and not executed
            (``my.py:Name`` for one of several), a .json, or what ``config.display()`` has printed. None: Matterport's defaults.

    Raises:
        InputError: the file cannot be read or is another network; a layer is missing or unknown; the settings are of another network.
    """
    settings = read_settings(config)
    tensors = read_h5(path)
    facts = _facts(path, tensors)
    for name, value in facts.items():
        settings.require(name, value, str(path))
    conversion = Conversion(str(path), tensors)
    try:
        map_layers(conversion, facts["BACKBONE"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: a layer is of another shape than Matterport's ({reason})") from error
    names = [str(entry["name"]) for entry in COCO_CATEGORIES if entry["isthing"]]
    classes = names if facts["NUM_CLASSES"] == len(names) + 1 else None
    converted = conversion.finish(build_config(settings), classes)
    settings.explain(converted.report)
    if config is None:
        defaults = "so that sizes of images and anchors, means and thresholds are Matterport's defaults"
        converted.report.missing["--matterport-config"] = defaults
    return converted


def read_h5(path: Path) -> dict[str, Tensor]:
    """Returns the weights of a Keras file, by ``layer/weight``, in float32.

    Versions of Keras nest groups in several ways: the names of layer and weight are the last two that matter.

    Raises:
        InputError: it cannot be read, or has no layer of this network.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError('reading Keras weights needs h5py: pip install "maskrcnn_ext[keras]"') from error
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    tensors: dict[str, Tensor] = {}

    def take(name: str, entry: Any) -> None:
        if not isinstance(entry, h5py.Dataset):
            return
        key = _key(name)
        if key in tensors:
            raise InputError(f"{path}: {key} is there twice")
        tensors[key] = torch.from_numpy(entry[()].astype("float32"))

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)  # beside it, model.save() puts the optimizer's state
            root.visititems(take)
    except InputError:
        raise
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError and ValueError at damaged files
        raise InputError(
            f"{path}: cannot be read as an .h5 file of Keras ({' '.join(str(error).split()):.200})"
        ) from error
    if not any(key.partition("/")[0] in _LAYERS for key in tensors):
        raise InputError(
            f"{path}: no weights of Matterport's Mask R-CNN: none of its layers, such as conv1 or fpn_p2, is there"
        )
    return tensors


def _key(name: str) -> str:
    """``model/conv1_1/kernel:0`` -> ``conv1/kernel``; a counter behind the layer's name is TensorFlow's."""
    *groups, weight = name.split("/")
    weight = weight.partition(":")[0]
    candidates = [*reversed(groups), *(re.sub(r"_\d+$", "", group) for group in reversed(groups))]
    layer = next((group for group in candidates if group in _LAYERS), groups[-1] if groups else "")
    return f"{layer}/{weight}"


def _facts(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that the weights tell by their names and shapes."""
    last = max(
        (match[1] for key in tensors if (match := re.fullmatch(r"res4([a-z])_branch2a/kernel", key))), default=""
    )
    backbones = {chr(ord("a") + blocks[2] - 1): name for name, blocks in BLOCKS.items()}
    if last not in backbones:
        raise InputError(
            f"{path}: stage 4 ends with block {last or '(none)'!r}: ResNet-50's is 'f', ResNet-101's is 'w'"
        )
    facts: dict[str, Any] = {"BACKBONE": backbones[last]}
    for name, (key, axis) in _TOLD_BY.items():
        if key not in tensors or tensors[key].ndim <= axis:
            raise InputError(
                f"{path}: {key} is not there or has too few axes: expected a whole Mask R-CNN of Matterport's"
            )
        facts[name] = tensors[key].shape[axis]
    return facts
