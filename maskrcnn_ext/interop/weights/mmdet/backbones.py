"""Maps the backbones of MMDetection: ResNet and ResNeXt to Detectron2's, RegNetX, Swin Transformer and ConvNeXt to timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Conversion, Rule
from maskrcnn_ext.interop.weights.mmdet.config import MMDetSettings
from maskrcnn_ext.interop.weights.reading import shape_of
from maskrcnn_ext.interop.weights.resnet import TENSOR, resnet_rule, set_resnet
from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone

_NET = "backbone.bottom_up.net"
_REGNET_STEM = "backbone.conv1.weight"
# Of timm's weights, for pixels of 0 to 255 in the order red, green, blue.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

# Family -> a key that only its checkpoints contain; checked in this order.
_MARKS = {
    "swin": r"backbone\.stages\.0\.blocks\.0\.attn\.w_msa\.relative_position_bias_table",
    "convnext": r"backbone\.stages\.0\.0\.depthwise_conv\.weight",
    "resnet": r"backbone\.layer1\.0\.conv1\.weight",
}
# Family -> (channels, blocks of all stages) -> timm's name. The channels are those of the last stage of a RegNetX, of the first of others.
_NAMES = {
    "regnet": {
        (384, 22): "regnetx_004",
        (672, 16): "regnetx_008",
        (912, 18): "regnetx_016",
        (1008, 25): "regnetx_032",
        (1360, 23): "regnetx_040",
        (1624, 17): "regnetx_064",
        (1920, 23): "regnetx_080",
        (2240, 19): "regnetx_120",
    },
    "swin": {(96, 12): "swin_tiny", (96, 24): "swin_small", (128, 24): "swin_base", (192, 24): "swin_large"},
    "convnext": {
        (96, 18): "convnext_tiny",
        (96, 36): "convnext_small",
        (128, 36): "convnext_base",
        (192, 36): "convnext_large",
        (256, 36): "convnext_xlarge",
        (352, 36): "convnext_huge",
    },
}
# Sides of the relative position tables of a Swin Transformer -> what timm appends to the name.
_WINDOWS = {13 * 13: "_patch4_window7_224", 23 * 23: "_patch4_window12_384"}


def find_family(source: str, tensors: Mapping[str, Tensor]) -> str:
    """Returns the family of the backbone: "resnet", "regnet", "swin" or "convnext".

    Raises:
        InputError: it is another one.
    """
    family = next((name for name, mark in _MARKS.items() if any(re.fullmatch(mark, key) for key in tensors)), None)
    if family == "resnet" and _REGNET_STEM in tensors:
        # A RegNet's first convolution has 3 x 3 pixels, a ResNet's 7 x 7.
        return "regnet" if tuple(tensors[_REGNET_STEM].shape[2:]) == (3, 3) else "resnet"
    if family is None or family == "resnet":
        raise InputError(
            f"{source}: the backbone is unknown: expected a ResNet, ResNeXt, RegNetX, Swin Transformer or ConvNeXt of MMDetection"
        )
    return family


def map_backbone(conversion: Conversion, tensors: Mapping[str, Tensor], family: str, settings: MMDetSettings) -> None:
    """Sets the tensors of the backbone.

    Args:
        conversion: of the whole model.
        tensors: tensors of the source by key.
        family: from :func:`find_family`.
        settings: of the model.
    """
    conversion.rename(_RULES[family])
    if family == "regnet":
        # timm's networks take R, G, B.
        flip = None if settings.to_rgb else _flip_colours
        conversion.put(f"{_NET}.stem.conv.weight", _REGNET_STEM, make=flip)
    if family == "swin":
        for key in tensors:
            match = re.fullmatch(r"backbone\.stages\.(\d)\.downsample\.(norm|reduction)\.(weight|bias)", key)
            if match:
                name = f"{_NET}.layers.{int(match[1]) + 1}.downsample.{match[2]}.{match[3]}"
                conversion.put(name, key, make=order_merged_patches)
        conversion.ignore(r"backbone\..*\.relative_position_index", "follows from the size of the window")


def order_merged_patches(tensor: Tensor) -> Tensor:
    """Reorders the 4 C channels of four neighbouring pixels, (..., 4 C), from MMDetection's order to that of the authors and timm.

    MMDetection takes the four pixels of channel 0, row by row, then those of channel 1 and so on. The authors take all channels of one
    pixel after the other, column by column.

    Example:
        >>> import torch
        >>> order_merged_patches(torch.arange(8)).tolist()
        [0, 4, 2, 6, 1, 5, 3, 7]
    """
    channels = tensor.shape[-1] // 4
    by_pixel = tensor.reshape(*tensor.shape[:-1], channels, 2, 2)  # channel, row, column
    return by_pixel.transpose(-3, -1).reshape(tensor.shape)


def set_backbone(
    cfg: DictConfig, source: str, tensors: Mapping[str, Tensor], family: str, settings: MMDetSettings
) -> None:
    """Sets a config's backbone to the one of the tensors.

    Args:
        cfg: a LazyConfig of an FPN model; changed in place.
        source: name of the source in messages.
        tensors: tensors of the source by key.
        family: from :func:`find_family`.
        settings: of the model.

    Raises:
        InputError: the backbone has a size that timm or Detectron2 has not, or its images are normalised in another way.
    """
    node = cfg.model.backbone
    # MMDetection's baselines keep the norms' statistics fixed in training, too (norm_eval).
    norm = "FrozenBN"
    if family == "resnet":
        set_resnet(node.bottom_up, tensors, "backbone", source=source, stride_in_1x1=settings.stride_in_1x1, norm=norm)
        return
    _check_pixels(source, settings)
    arguments = {"norm": norm} if family == "regnet" else {"out_norms": True, "drop_path_rate": settings.drop_path_rate}
    node.bottom_up = L(TimmBackbone)(
        name=_find_name(source, tensors, family),
        pretrained="checkpoint",
        out_features=["res2", "res3", "res4", "res5"],
        pixel_mean=list(settings.mean),
        pixel_std=list(settings.std),
        input_format="RGB" if settings.to_rgb else "BGR",
        **arguments,
    )


def _find_name(source: str, tensors: Mapping[str, Tensor], family: str) -> str:
    """Returns timm's name of a network."""
    pattern = {"regnet": r"backbone\.layer(\d)\.(\d+)\.", "swin": r"backbone\.stages\.(\d)\.blocks\.(\d+)\."}
    found = re.compile(pattern.get(family, r"backbone\.stages\.(\d)\.(\d+)\."))
    blocks = {match.groups() for key in tensors if (match := found.match(key))}
    width_key = {
        "regnet": "backbone.layer4.0.conv3.weight",
        "swin": "backbone.patch_embed.projection.weight",
        "convnext": "backbone.downsample_layers.0.0.weight",
    }[family]
    channels = shape_of(source, tensors, width_key, 4)[0]
    name = _NAMES[family].get((channels, len(blocks)))
    if name is not None and family == "swin":
        table = shape_of(source, tensors, "backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table", 2)[0]
        end = _WINDOWS.get(table)
        name = None if end is None else name + end
    if name is not None and any(key.endswith(".grn.gamma") for key in tensors):
        name = name.replace("convnext_", "convnextv2_")
    if name is None:
        raise InputError(
            f"{source}: a {family} with {channels} channels and {len(blocks)} blocks is not among timm's: expected "
            f"{', '.join(_NAMES[family].values())}"
        )
    return name


def _check_pixels(source: str, settings: MMDetSettings) -> None:
    """Raises an InputError unless images are normalised as for timm's networks, whose order of channels may differ."""
    own = [[*settings.mean], [*settings.std]]
    expected = [[*pair] if settings.to_rgb else [*pair[::-1]] for pair in (_MEAN, _STD)]
    if any(abs(a - b) > 1e-2 for x, y in zip(own, expected, strict=True) for a, b in zip(x, y, strict=True)):
        raise InputError(
            f"{source}: its config normalises images with mean={own[0]} and std={own[1]}, and this backbone is imported with "
            f"{expected[0]} and {expected[1]} only"
        )


def _flip_colours(weight: Tensor) -> Tensor:
    return weight.flip(1)


def _regnet_name(match: re.Match[str]) -> str:
    """Returns timm's name for a match of the rule for a RegNet's blocks."""
    stage, block, kind, number, tensor = match.groups()
    layer = "conv" if kind == "conv" or (kind == "downsample." and number == "0") else "bn"
    part = "downsample" if kind == "downsample." else f"conv{number}"
    return f"{_NET}.s{stage}.b{int(block) + 1}.{part}.{layer}.{tensor}"


def _out_norm_name(match: re.Match[str]) -> str:
    return f"backbone.bottom_up.out_norms.res{int(match[1]) + 2}.{match[2]}"


def _inside(block: str, new_block: str, names: Mapping[str, str]) -> list[Rule]:
    """Returns rules for the tensors in a block: pattern of the place in the block -> place in timm's block."""
    return [(rf"{block}\.{old}", rf"{new_block}.{new}") for old, new in names.items()]


_OUT_NORM: tuple[str, Callable[[re.Match[str]], str]] = (rf"backbone\.norm(\d)\.{TENSOR}", _out_norm_name)
_RULES: dict[str, list[Rule]] = {
    "resnet": [resnet_rule("backbone")],
    "regnet": [
        (rf"backbone\.bn1\.{TENSOR}", rf"{_NET}.stem.bn.\1"),
        (rf"backbone\.layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.{TENSOR}", _regnet_name),
    ],
    "swin": [
        (rf"backbone\.patch_embed\.projection\.{TENSOR}", rf"{_NET}.patch_embed.proj.\1"),
        (rf"backbone\.patch_embed\.norm\.{TENSOR}", rf"{_NET}.patch_embed.norm.\1"),
        *_inside(
            r"backbone\.stages\.(\d)\.blocks\.(\d+)",
            rf"{_NET}.layers.\1.blocks.\2",
            {
                r"attn\.w_msa\.(qkv|proj)\.(weight|bias)": r"attn.\3.\4",
                r"attn\.w_msa\.relative_position_bias_table": "attn.relative_position_bias_table",
                r"(norm[12])\.(weight|bias)": r"\3.\4",
                r"ffn\.layers\.0\.0\.(weight|bias)": r"mlp.fc1.\3",
                r"ffn\.layers\.1\.(weight|bias)": r"mlp.fc2.\3",
            },
        ),
        _OUT_NORM,
    ],
    "convnext": [
        (rf"backbone\.downsample_layers\.0\.(\d)\.{TENSOR}", rf"{_NET}.stem.\1.\2"),
        (rf"backbone\.downsample_layers\.([1-3])\.(\d)\.{TENSOR}", rf"{_NET}.stages.\1.downsample.\2.\3"),
        *_inside(
            r"backbone\.stages\.(\d)\.(\d+)",
            rf"{_NET}.stages.\1.blocks.\2",
            {
                r"depthwise_conv\.(weight|bias)": r"conv_dw.\3",
                r"norm\.(weight|bias)": r"norm.\3",
                r"pointwise_conv([12])\.(weight|bias)": r"mlp.fc\3.\4",
                r"gamma": "gamma",
                r"grn\.gamma": "mlp.grn.weight",
                r"grn\.beta": "mlp.grn.bias",
            },
        ),
        _OUT_NORM,
    ],
}
