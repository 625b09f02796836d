"""Layer-wise learning-rate decay (arXiv:2003.10555, arXiv:2106.08254): the rate of a layer falls with its distance from the heads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from detectron2.solver.build import get_default_optimizer_params, reduce_param_groups
from torch import nn

from maskrcnn_ext.common.ranges import is_share
from maskrcnn_ext.errors import InputError

# Where a parameter is in a backbone: the stage and the block of the stage. The stem is (0, 0).
Position = tuple[int, int]
_STEM: Position = (0, 0)


class _Family(NamedTuple):
    """The parameter names of a backbone.

    Attributes:
        stem: pattern of the stem's parameters.
        block: pattern of a block's parameters. Its groups are stage and block, or the block alone in a net of one stage.
        by_stage: whether a stage is one layer by default, else a block.
    """

    stem: str
    block: str
    by_stage: bool


# Detectron2's backbones by class name; ViT and MViT are on its main branch only. The residual blocks that a ViT can have are new, not
# pretrained: they train at the full rate.
_FAMILIES = {
    "ResNet": _Family(r"stem\.", r"res(\d+)\.(\d+)\.", by_stage=True),
    "RegNet": _Family(r"stem\.", r"s(\d+)\.b(\d+)\.", by_stage=True),
    "ViT": _Family(r"pos_embed|patch_embed\.", r"blocks\.(\d+)\.(?!residual\.)", by_stage=False),
    "MViT": _Family(r"pos_embed|patch_embed\.", r"blocks\.(\d+)\.", by_stage=False),
}


def layer_decay_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float = 1.0,
    weight_decay_bias: float | None = None,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
    *,
    decay_rate: float,
    blocks_per_layer: int | None = None,
) -> list[dict[str, Any]]:
    """Returns the parameter groups of an optimizer, with a learning rate for each layer of the backbone.

    A layer that is ``n`` layers below the heads has the rate ``base_lr * decay_rate ** n``. FPN, RPN and heads have ``base_lr``. It takes
    the place of Detectron2's ``get_default_optimizer_params`` and has its arguments. Parameters with equal settings share a group; frozen
    parameters are in none.

    The backbone is a timm net (layers by timm's own ``group_matcher``), or Detectron2's ResNet or RegNet (stem and stages), ViT or MViT
    (patch embedding and blocks).

    Args:
        model: a model with a `backbone`.
        base_lr: the learning rate of the heads. It is required unless `decay_rate` is 1.
        weight_decay: of every parameter; the optimizer's by default.
        weight_decay_norm: of normalisation layers.
        bias_lr_factor: factor on the learning rate of biases.
        weight_decay_bias: of biases.
        overrides: settings by the last part of a parameter's name. A learning rate that is set here does not decay.
        decay_rate: factor from one layer to the one below it, above 0, at most 1.
        blocks_per_layer: number of consecutive blocks of a stage that are one layer. By default a stage is one layer in Detectron2's ResNet
            and RegNet, and a block in the others. 3 gives the layers of ConvNeXt's detectors (arXiv:2201.03545).

    Raises:
        InputError: `decay_rate` is invalid, `base_lr` is missing, or the layers of this backbone are unknown.

    Example::

        optimizer.params._target_=maskrcnn_ext.layer_decay_params optimizer.params.decay_rate=0.7
    """
    if not is_share(decay_rate, above_zero=True):
        raise InputError(
            f"optimizer.params.decay_rate={decay_rate}: expected a number above 0 and not above 1, such as 0.7"
        )
    if base_lr is None and decay_rate != 1:
        raise InputError("layer_decay_params needs the learning rate: add 'optimizer.params.base_lr=${optimizer.lr}'")
    chosen = {name: dict(settings) for name, settings in (overrides or {}).items()}
    fixed = {name for name, settings in chosen.items() if "lr" in settings}
    groups = get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay=weight_decay,
        weight_decay_norm=weight_decay_norm,
        bias_lr_factor=bias_lr_factor,
        weight_decay_bias=weight_decay_bias,
        overrides=chosen,
    )
    if decay_rate == 1:
        return list(groups)
    settings_of = {
        parameter: {key: value for key, value in group.items() if key != "params"}
        for group in groups
        for parameter in group["params"]
    }
    factors = layer_factors(model, decay_rate, blocks_per_layer=blocks_per_layer)
    decayed = []
    for name, parameter in model.named_parameters():
        if parameter not in settings_of:
            continue
        settings = settings_of[parameter]
        factor = 1.0 if name.rpartition(".")[2] in fixed else factors[name]
        decayed.append({"params": [parameter], **settings, "lr": settings["lr"] * factor})
    return list(reduce_param_groups(decayed))


def layer_factors(model: nn.Module, decay_rate: float, *, blocks_per_layer: int | None = None) -> dict[str, float]:
    """Returns the learning-rate factor of every parameter, by name.

    Args:
        model: a model with a `backbone`.
        decay_rate: as in :func:`layer_decay_params`.
        blocks_per_layer: as in :func:`layer_decay_params`.

    Raises:
        InputError: the layers of this backbone are unknown.
    """
    positions = _backbone_positions(model, blocks_per_layer)
    layers = {position: number for number, position in enumerate(sorted(set(positions.values())))}
    # A parameter that is in no layer belongs to the neck or a head.
    return {
        name: decay_rate ** (len(layers) - layers[positions[name]]) if name in positions else 1.0
        for name, _ in model.named_parameters()
    }


def _backbone_positions(model: nn.Module, blocks_per_layer: int | None) -> dict[str, Position]:
    """Returns stage and layer of the stage, of each parameter of the outermost backbone whose layers are known."""
    for prefix, module in model.named_modules():
        by_stage = False
        if _is_timm(module):
            found = _timm_positions(module)
        elif family := next((_FAMILIES[name] for name in _detectron2_classes(module) if name in _FAMILIES), None):
            found = _named_positions(module, family)
            by_stage = family.by_stage
        else:
            continue
        size = blocks_per_layer or (10**6 if by_stage else 1)
        start = f"{prefix}." if prefix else ""
        return {f"{start}{name}": (stage, block // size) for name, (stage, block) in found.items()}
    kind = type(getattr(model, "backbone", model)).__name__
    raise InputError(
        f"layer_decay_params supports the layers of timm's nets and of Detectron2's {', '.join(_FAMILIES)}, not of {kind}: set "
        "optimizer.params.decay_rate=1"
    )


def _detectron2_classes(module: nn.Module) -> list[str]:
    return [cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith("detectron2.")]


def _named_positions(net: nn.Module, family: _Family) -> dict[str, Position]:
    positions = {}
    for name, _ in net.named_parameters():
        if re.match(family.stem, name):
            positions[name] = _STEM
        elif found := re.match(family.block, name):
            *stage, block = map(int, found.groups())
            positions[name] = (stage[0] if stage else 1, block)
    return positions


def _is_timm(module: nn.Module) -> bool:
    """Whether a module is a net of timm, whole or as an extractor of features."""
    return hasattr(module, "feature_info") and "architecture" in (getattr(module, "pretrained_cfg", None) or {})


def _timm_positions(net: nn.Module) -> dict[str, Position]:
    """Returns the positions of a timm net's parameters.

    An extractor of features has other parameter names than the whole net and lacks its ``group_matcher``. So the whole net is built without
    memory for its weights.
    """
    import timm

    with torch.device("meta"):
        whole = timm.create_model(net.pretrained_cfg["architecture"])
    blocks, stages = (
        timm.models.group_parameters(whole, whole.group_matcher(coarse=coarse), reverse=True)
        for coarse in (False, True)
    )
    classifiers = whole.pretrained_cfg.get("classifier") or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    # timm puts parameters that it cannot match into the group of the classifier.
    unmatched = {blocks[name] for name in blocks if name.startswith(tuple(f"{head}." for head in heads))}
    first = {stage: min(blocks[name] for name in stages if stages[name] == stage) for stage in set(stages.values())}
    if all(blocks[name] == first[stages[name]] for name in stages):  # plain ViTs: every block is a stage
        stages, first = {name: min(number, 1) for name, number in blocks.items()}, {0: 0, 1: 1}
    positions = {}
    own = {name for name, _ in net.named_parameters()}
    for name, block in blocks.items():
        # An extractor flattens the sequences at the top ("stages.0" becomes "stages_0") or wraps the net.
        for spelling in (name, name.replace(".", "_", 1), f"model.{name}"):
            if spelling in own and block not in unmatched:
                positions[spelling] = (stages[name], block - first[stages[name]])
    return positions
