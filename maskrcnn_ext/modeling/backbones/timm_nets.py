"""Builds networks of timm: checks the name, chooses the feature maps of the wanted strides, and lets images have any size."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import did_you_mean, short_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.backbones.pretrained import (
    download_failed,
    find_source,
    load_file,
    report_timms_weights,
    warn_of_licence,
)

PATCH = 16  # stride of the maps of plain ViTs


def import_timm() -> Any:
    """Returns the package timm.

    Raises:
        InputError: it is not installed.
    """
    return require("timm", extra="timm", purpose="maskrcnn_ext.TimmBackbone")


class TimmNet:
    """The facts about a network that need no weights.

    Attributes:
        name: timm's name, with or without the tag of its weights.
        is_plain: whether it is a plain ViT, with one map for all blocks.
        maps: for each of its feature maps: num_chs, reduction (the stride), and module.
        parameters: names of the arguments that its constructor takes.

    Example:
        >>> [entry["reduction"] for entry in TimmNet("resnet18").maps]
        [2, 4, 8, 16, 32]
    """

    def __init__(self, name: str) -> None:
        """Reads the network's description.

        Raises:
            InputError: timm has no such network or no such weights, or the network has no feature maps or takes one size of images only.
        """
        _check_name(name)
        self.name = name
        with torch.device("meta"):
            net = import_timm().create_model(name, num_classes=0)
        found: Any = getattr(net, "feature_info", None)
        self.maps: list[dict[str, Any]] = list(found.get_dicts() if hasattr(found, "get_dicts") else found or ())
        if not self.maps or not hasattr(net, "forward_intermediates"):
            raise InputError(f"{name} has no feature maps: choose another network, such as convnext_tiny")
        self.parameters = _constructor_parameters(type(net))
        self.is_plain = (
            len({entry["reduction"] for entry in self.maps}) == 1
            and len(self.maps) > 4
            and {"patch_size", "dynamic_img_size"} <= self.parameters
        )
        self._options = self._size_options(net)

    def _size_options(self, net: nn.Module) -> dict[str, Any]:
        """Returns the constructor's options with which images of any size pass, and the patches of a plain ViT have 16 pixels."""
        if self.is_plain:
            options: dict[str, Any] = {"dynamic_img_size": True}
            patch = int(self.maps[0]["reduction"])
            if patch != PATCH:
                if hasattr(net.patch_embed, "backbone"):
                    raise InputError(
                        f"{self.name} has a map of stride {patch} that a convolutional network makes, which cannot be resampled to "
                        f"{PATCH}: choose another network, such as vit_base_r50_s16_224 or convnext_tiny"
                    )
                # The grid of position embeddings stays that of the pre-training; timm resamples the patches.
                size = net.pretrained_cfg["input_size"][-1]
                options |= {"patch_size": PATCH, "img_size": size // patch * PATCH}
            return options
        if "strict_img_size" in self.parameters:
            return {"strict_img_size": False}
        if net.pretrained_cfg.get("fixed_input_size") and "dynamic_img_size" not in self.parameters:
            size = "x".join(map(str, net.pretrained_cfg["input_size"][1:]))
            raise InputError(
                f"{self.name} takes images of {size} pixels only: choose another network, such as convnext_tiny"
            )
        return {"dynamic_img_size": True} if "dynamic_img_size" in self.parameters else {}

    def choose_maps(self, strides: Sequence[int]) -> list[int]:
        """Returns the index of the last map of each stride; for a plain ViT that of its last map.

        Raises:
            InputError: the network has no map of one of the strides.
        """
        if self.is_plain:
            return [len(self.maps) - 1]
        last = {entry["reduction"]: index for index, entry in enumerate(self.maps)}
        missing = [stride for stride in strides if stride not in last]
        if missing:
            raise InputError(
                f"{self.name} has maps of strides {short_list(sorted(last), 8)}, none of {short_list(missing)}: choose another network, "
                "such as convnext_tiny"
            )
        return [last[stride] for stride in strides]

    def parameters_before(self, net: nn.Module, freeze_at: int) -> set[str]:
        """Returns the parameters of the stem and of the first ``freeze_at - 1`` stages.

        timm registers modules in the order in which they run. The stem is all modules before the map of stride 4; the stages end at the
        maps of strides 4, 8, 16 and 32. A plain ViT has four stages of a quarter of its blocks each, after the embedding.

        Raises:
            InputError: the ends of the stages do not follow from the network's maps.
        """
        if self.is_plain:
            count = len(self.maps)
            ends = [self.maps[max(1, round(count * quarter / 4)) - 1]["module"] for quarter in (1, 2, 3, 4)]
            start = self.maps[0]["module"]
        else:
            ends = [self.maps[index]["module"] for index in self.choose_maps((4, 8, 16, 32))]
            start = ends[0]
        modules = [name for name, _ in net.named_modules()]
        if not {start, *ends} <= set(modules):
            raise InputError(
                f"freeze_at={freeze_at}: the stages of {self.name} are not known: set model.backbone.bottom_up.freeze_at=0"
            )
        bound = start if freeze_at == 1 else ends[freeze_at - 2]
        before = set(modules[: modules.index(bound)])
        own = {bound} if freeze_at > 1 else set()
        return {
            name
            for name, _ in net.named_parameters()
            if any(name.startswith(f"{module}.") for module in own) or name.rpartition(".")[0] in before
        }

    def build(self, pretrained: bool | str, *, in_chans: int, drop_path_rate: float | None) -> nn.Module:
        """Builds the network without its classifier, and loads its weights.

        Args:
            pretrained: see :class:`.timm_backbone.TimmBackbone`.
            in_chans: channels of the images.
            drop_path_rate: largest rate of stochastic depth; None for the network's own.

        Raises:
            InputError: the weights cannot be found or do not fit; or the network has no stochastic depth.
        """
        options = dict(self._options)
        if drop_path_rate is not None:
            if "drop_path_rate" not in self.parameters:
                raise InputError(
                    f"drop_path_rate={drop_path_rate}: {self.name} has no stochastic depth: set it to null"
                )
            options["drop_path_rate"] = float(drop_path_rate)
        source = find_source(pretrained, self.name)
        create = import_timm().create_model
        if source is True and torch.empty(0).is_meta:
            source = False  # a check of the config: nothing is downloaded
        if source is True:
            try:
                net: nn.Module = create(self.name, pretrained=True, num_classes=0, in_chans=in_chans, **options)
            except Exception as error:  # timm's hub clients raise many unrelated types
                raise download_failed(self.name, error) from error
            report_timms_weights(self.name, net.pretrained_cfg)
            warn_of_licence(self.name, net.pretrained_cfg)
            return net
        net = create(self.name, pretrained=False, num_classes=0, in_chans=in_chans, **options)
        if source:
            load_file(net, source, self.name)
        return net


def _constructor_parameters(cls: type) -> frozenset[str]:
    """Returns the names of the arguments that a constructor takes, with those that it passes on to its base classes."""
    names: set[str] = set()
    for base in cls.__mro__:
        parameters = inspect.signature(base).parameters
        names |= parameters.keys()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return frozenset(names)


def _check_name(name: str) -> None:
    """Raises an InputError with similar names if timm has no such network or no weights of that tag."""
    timm = import_timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        hint = did_you_mean(base, timm.list_models()) or "timm.list_models() lists them"
        raise InputError(f"timm has no network {name!r}: {hint}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = f"the tags are {short_list(tags, 8)}" if tags else "it has none"
        raise InputError(f"timm has no weights {name!r}: {did_you_mean(tag, tags) or known}")
