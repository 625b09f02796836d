"""Maps ResNets with torchvision's names, such as ``layer1.0.conv1``, ``bn1`` and ``downsample``, to Detectron2's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from detectron2.config import LazyCall as L
from detectron2.modeling import ResNet
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Rule
from maskrcnn_ext.interop.weights.reading import shape_of
from maskrcnn_ext.modeling.resnet_stages import make_bottleneck_stages

# Matches the name of a tensor of a layer or of its norm.
TENSOR = r"(weight|bias|running_mean|running_var)"

# (whether the blocks are basic ones, number of blocks in layer3) -> depth
_DEPTHS = {(True, 2): 18, (True, 6): 34, (False, 6): 50, (False, 23): 101, (False, 36): 152}


def resnet_rule(prefix: str) -> Rule:
    r"""Returns the rule that renames the keys of a ResNet whose prefix matches a pattern such as ``backbone\\.body``."""
    return rf"{prefix}\.(?:layer(\d)\.(\d+)\.)?(conv|bn|downsample\.)(\d)\.{TENSOR}", _detectron2_name


def _detectron2_name(match: re.Match[str]) -> str:
    """Returns Detectron2's name for a match of :func:`resnet_rule`."""
    stage, block, kind, number, tensor = match.groups()
    place = "stem" if stage is None else f"res{int(stage) + 1}.{block}"
    conv = "shortcut" if kind == "downsample." else f"conv{number}"
    norm = "norm." if kind == "bn" or (kind == "downsample." and number == "1") else ""
    return f"backbone.bottom_up.{place}.{conv}.{norm}{tensor}"


def set_resnet(
    bottom_up: DictConfig, tensors: Mapping[str, Tensor], prefix: str, *, source: str, stride_in_1x1: bool, norm: str
) -> None:
    """Sets depth and width of a config's ResNet to those of the tensors.

    Args:
        bottom_up: config of Detectron2's ResNet; changed in place.
        tensors: tensors of the source by key.
        prefix: of the ResNet's keys, such as ``backbone.body``.
        source: name of the source in messages.
        stride_in_1x1: whether the first 1 x 1 convolution of a stage has its stride; this does not follow from the shapes.
        norm: name of the norm in :func:`detectron2.layers.get_norm`.

    Raises:
        InputError: the tensors are not those of a ResNet or ResNeXt of 18, 34, 50, 101 or 152 layers.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.layer3\.(\d+)\.")
    blocks = len({match[1] for key in tensors if (match := pattern.match(key))})
    is_basic = f"{prefix}.layer1.0.conv3.weight" not in tensors
    depth = _DEPTHS.get((is_basic, blocks))
    if depth is None:
        raise InputError(
            f"{source}: the backbone has {blocks} blocks in layer3: expected a ResNet of 18, 34, 50, 101 or 152 layers"
        )
    bottom_up.stem.norm = norm
    if is_basic:
        bottom_up.stages = L(ResNet.make_default_stages)(depth=depth, norm=norm)
        return
    width, per_group = shape_of(source, tensors, f"{prefix}.layer1.0.conv2.weight", 4)[:2]
    groups = width // per_group
    if (groups, width) == (1, 64):
        bottom_up.stages = L(ResNet.make_default_stages)(depth=depth, stride_in_1x1=stride_in_1x1, norm=norm)
        return
    bottom_up.stages = L(make_bottleneck_stages)(
        depth=depth, num_groups=groups, width_per_group=per_group, stride_in_1x1=stride_in_1x1, norm=norm
    )
