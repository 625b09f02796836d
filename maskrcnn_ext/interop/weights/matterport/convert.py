"""Imports weights of Keras's Mask R-CNN (Matterport, .h5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Conversion, Converted
from maskrcnn_ext.interop.weights.matterport.layers import BLOCKS, layer_names, map_layers
from maskrcnn_ext.interop.weights.matterport.lazy_config import build_config
from maskrcnn_ext.interop.weights.matterport.settings import read_settings

_LAYERS = set().union(*map(layer_names, BLOCKS))
_LARGEST_WEIGHT = 2**31  # bytes; a small file can declare a weight of any size
# Setting -> the weight that determines it, and its axis.
_DETERMINED_BY = {
    "NUM_CLASSES": ("mrcnn_class_logits/kernel", 1),
    "IMAGE_CHANNEL_COUNT": ("conv1/kernel", 2),
    "TOP_DOWN_PYRAMID_SIZE": ("fpn_c5p5/kernel", 3),
    "FPN_CLASSIF_FC_LAYERS_SIZE": ("mrcnn_class_conv1/kernel", 3),
    "POOL_SIZE": ("mrcnn_class_conv1/kernel", 0),
}


def convert(path: Path, *, config: Path | None = None) -> Converted:
    """Converts a Mask R-CNN saved by Keras.

    Args:
        path: an .h5 file written by ``model.save_weights`` or ``model.save``.
        config: the settings of the training: a .py file with a subclass of Matterport's ``Config``, which is parsed and not executed
            (``my.py:Name`` chooses one of several), a .json file, or the output of ``config.display()``. If None, Matterport's defaults.

    Raises:
        InputError: the file cannot be read or contains another network, a layer is missing or unknown, or the settings contradict the
            weights.

    Example::

        write_model(convert(Path("mask_rcnn_coco.h5")), Path("imported"))
    """
    settings = read_settings(config)
    tensors = read_h5(path)
    facts = _read_facts(path, tensors)
    for name, value in facts.items():
        settings.set_fact(name, value, str(path))
    conversion = Conversion(str(path), tensors)
    try:
        map_layers(conversion, facts["BACKBONE"])
    except RuntimeError as error:
        raise InputError(f"{path}: the shape of a layer differs from Matterport's ({one_line(error)})") from error
    names = [str(entry["name"]) for entry in COCO_CATEGORIES if entry["isthing"]]
    classes = names if facts["NUM_CLASSES"] == len(names) + 1 else None
    converted = conversion.finish(build_config(settings), classes)
    settings.add_to_report(converted.report)
    if config is None:
        defaults = "so sizes of images and anchors, means and thresholds are Matterport's defaults"
        converted.report.missing["--matterport-config"] = defaults
    return converted


def read_h5(path: Path) -> dict[str, Tensor]:
    """Returns the weights of a Keras file by ``layer/weight``, in float32.

    Versions of Keras nest groups differently; the key is made of the names of the layer and of the weight.

    Raises:
        InputError: the file cannot be read, contains no layer of this network, or refers to other files or to other places in it.
    """
    h5py = require("h5py", extra="keras", purpose="reading Keras weights")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    tensors: dict[str, Tensor] = {}

    def describe_link(name: str, link: Any) -> str | None:  # a result ends the walk; an error would be lost in h5py
        if isinstance(link, h5py.ExternalLink):
            return f"{name} is a link to {link.path} of {link.filename}"
        return f"{name} is a link to {link.path}" if isinstance(link, h5py.SoftLink) else None

    def take(name: str, entry: Any) -> None:
        if not isinstance(entry, h5py.Dataset):
            return
        if entry.external or entry.is_virtual:
            raise InputError(
                f"{path}: {name} is stored in other files, which are not read: save the weights themselves"
            )
        if entry.nbytes > _LARGEST_WEIGHT:
            raise InputError(
                f"{path}: {name} of shape {entry.shape} has {entry.nbytes / 1e9:,.0f} GB, more than any weight"
            )
        key = _key(name)
        if key in tensors:
            raise InputError(f"{path}: contains {key} twice")
        tensors[key] = torch.from_numpy(entry[()].astype("float32"))

    try:
        with h5py.File(path, "r") as file:
            link = file.visititems_links(describe_link)
            if link is not None:
                raise InputError(f"{path}: {link}, which is not followed: save the weights themselves")
            root = file.get("model_weights", file)  # model.save() also writes the optimizer's state
            root.visititems(take)
    except InputError:
        raise
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError and ValueError for damaged files
        raise InputError(
            f"{path}: cannot read it as an .h5 file of Keras ({' '.join(str(error).split()):.200})"
        ) from error
    if not any(key.partition("/")[0] in _LAYERS for key in tensors):
        raise InputError(
            f"{path}: not the weights of Matterport's Mask R-CNN: all of its layers, such as conv1 and fpn_p2, are missing"
        )
    return tensors


def _key(name: str) -> str:
    """Returns ``conv1/kernel`` for ``model/conv1_1/kernel:0``; TensorFlow appends a counter to a layer's name."""
    *groups, weight = name.split("/")
    weight = weight.partition(":")[0]
    candidates = [*reversed(groups), *(re.sub(r"_\d+$", "", group) for group in reversed(groups))]
    layer = next((group for group in candidates if group in _LAYERS), groups[-1] if groups else "")
    return f"{layer}/{weight}"


def _read_facts(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the settings that follow from the names and shapes of the weights."""
    last = max(
        (match[1] for key in tensors if (match := re.fullmatch(r"res4([a-z])_branch2a/kernel", key))), default=""
    )
    backbones = {chr(ord("a") + blocks[2] - 1): name for name, blocks in BLOCKS.items()}
    if last not in backbones:
        raise InputError(
            f"{path}: stage 4 ends with block {last or '(none)'!r}: ResNet-50's is 'f', ResNet-101's is 'w'"
        )
    facts: dict[str, Any] = {"BACKBONE": backbones[last]}
    for name, (key, axis) in _DETERMINED_BY.items():
        if key not in tensors or tensors[key].ndim <= axis:
            raise InputError(
                f"{path}: {key} is missing or has too few axes: expected a complete Mask R-CNN of Matterport"
            )
        facts[name] = tensors[key].shape[axis]
    return facts
