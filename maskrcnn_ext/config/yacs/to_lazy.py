"""Converts a yacs config of Detectron2's R-CNN family to a LazyConfig: the nearest shipped config and the differences from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg
from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.config.yacs.file import merge_yacs_file
from maskrcnn_ext.config.yacs.reader import Rules, YamlReader
from maskrcnn_ext.config.yacs.rules import Neck, neck_of, read_rules
from maskrcnn_ext.config.zoo import get_config, list_configs
from maskrcnn_ext.errors import InputError

_MISSING = object()
_MASK_KEYS = ("mask_in_features", "mask_pooler", "mask_head")
# Keys without effect on the training: checks of Detectron2's own tests, and keys of other architectures.
_WITHOUT_EFFECT = (
    "VERSION",
    "TEST.EXPECTED_RESULTS",
    "GLOBAL.",
    "MODEL.RETINANET.",
    "MODEL.SEM_SEG_HEAD.",
    "MODEL.PANOPTIC_FPN.",
)
# Sections that matter only if their switch is on. An error then names the switch.
_SWITCHED = {"TEST.AUG.": "ENABLED", "TEST.PRECISE_BN.": "ENABLED", "SOLVER.CLIP_GRADIENTS.": "ENABLED"}
_EVALUATORS = {
    "pascal_voc": "PascalVOCDetectionEvaluator",
    "cityscapes_instance": "CityscapesInstanceEvaluator",
    "lvis": "LVISEvaluator",
}


def load_yaml(config: str, options: list[str]) -> CfgNode:
    """Loads a yacs config.

    Args:
        config: a file, or a name in Detectron2's model zoo such as ``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml``.
        options: alternating keys and values, as for Detectron2's ``tools/train_net.py``.

    Raises:
        InputError: the file does not exist, or Detectron2 does not have one of the keys.

    Example:
        >>> load_yaml("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", ["SOLVER.BASE_LR", "0.01"]).SOLVER.BASE_LR
        0.01
    """
    from detectron2 import model_zoo

    file = config
    if not Path(config).is_file():
        try:
            file = model_zoo.get_config_file(config)
        except RuntimeError as error:
            raise InputError(
                f"{config}: no such file, and Detectron2's model zoo has no config of this name"
            ) from error
    if not file.endswith((".yaml", ".yml")):
        raise InputError(f"{config}: expected a .yaml; a .py is a LazyConfig already")
    if len(options) % 2:
        raise InputError(f"expected KEY VALUE pairs, found {' '.join(options)}")
    cfg = get_cfg()
    merge_yacs_file(cfg, file)
    try:
        cfg.merge_from_list(options)
    except Exception as error:  # AssertionError of yacs, KeyError, errors of yaml
        raise InputError(f"{config}: {first_line(error)}") from error
    return cfg


def convert_to_lazy(cfg: CfgNode, name: str) -> str:
    """Returns the source of a LazyConfig with the model, data, optimizer and schedule of a yacs config.

    The state dicts of both models have equal keys and shapes. Checkpoint and evaluation settings are converted if both kinds of
    config have them. ``train.checkpointer.max_to_keep`` has no equivalent in a yacs config and keeps its value.

    Args:
        cfg: a yacs config.
        name: the name of the config in the first line of the file.

    Raises:
        InputError: the architecture is not an R-CNN, or keys have no equivalent in a LazyConfig; the message names them all.

    Example:
        >>> cfg = load_yaml("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", [])
        >>> '_base = get_config("mask_rcnn_r50_fpn_1x.py")' in convert_to_lazy(cfg, "mask_rcnn_R_50_FPN_1x.yaml")
        True
    """
    yaml = YamlReader(cfg)
    if yaml("MODEL.META_ARCHITECTURE") != "GeneralizedRCNN" or yaml("MODEL.PROPOSAL_GENERATOR.NAME") != "RPN":
        raise InputError(
            f"{name}: MODEL.META_ARCHITECTURE={yaml('MODEL.META_ARCHITECTURE')} with MODEL.PROPOSAL_GENERATOR.NAME="
            f"{yaml('MODEL.PROPOSAL_GENERATOR.NAME')}: expected GeneralizedRCNN with RPN"
        )
    try:
        neck = neck_of(yaml)
        rules = read_rules(yaml, neck)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    part_changes = list(_part_changes(yaml))
    unread = [key for key in yaml.unread() if not _is_without_effect(yaml, key)]
    if unread:
        settings = ", ".join(f"{key}={yaml(key)}" for key in unread)
        raise InputError(
            f"{name}: a LazyConfig of maskrcnn_ext has no equivalent of {settings}; to ignore a key, append it with its default (KEY VALUE)"
        )
    base, changes = min(
        ((b, _changes(rules, neck, b)) for b in _candidates(yaml, neck)), key=lambda candidate: len(candidate[1])
    )
    return _source(name, base, [*changes, *part_changes])


def _is_without_effect(yaml: YamlReader, key: str) -> bool:
    for section, switch in _SWITCHED.items():
        if key.startswith(section):
            return not yaml(section + switch)
    return key.startswith(_WITHOUT_EFFECT) or (key.startswith("DATASETS.P") and not yaml("MODEL.LOAD_PROPOSALS"))


def _candidates(yaml: YamlReader, neck: Neck) -> list[str]:
    """Returns the shipped configs with the parts of a yacs config. Faster R-CNN with C4 or DC5 is derived from Mask R-CNN."""
    cascade, keypoints = yaml("MODEL.ROI_HEADS.NAME") == "CascadeROIHeads", yaml("MODEL.KEYPOINT_ON")
    if keypoints and (cascade or neck != "fpn"):
        raise InputError("MODEL.KEYPOINT_ON=True: expected build_resnet_fpn_backbone with StandardROIHeads")
    family = "mask_rcnn"
    if cascade:
        family = "cascade_mask_rcnn"
    elif keypoints:
        family = "mask_keypoint_rcnn" if yaml("MODEL.MASK_ON") else "keypoint_rcnn"
    elif neck == "fpn" and not yaml("MODEL.MASK_ON"):
        family = "faster_rcnn"
    # The backbones of yacs configs are Detectron2's ResNets and ResNeXts.
    resnets = re.compile(rf"{family}_[rx]\d+_{neck}_[13]x\.py")
    return [name for name in list_configs() if resnets.fullmatch(name)]


def _changes(rules: Rules, neck: Neck, base: str) -> list[str]:
    """Returns the statements that change a shipped config to the converted one."""
    cfg = get_config(base)
    lines, values = [], dict(rules.values)
    if not rules.yaml("MODEL.MASK_ON") and "mask_head" in cfg.model.roi_heads:
        keys = [key for key in _MASK_KEYS if key in cfg.model.roi_heads]
        lines.append("del " + ", ".join(f'model.roi_heads["{key}"]' for key in keys))
    lines += _stages(cfg, values, "model.backbone.bottom_up" if neck == "fpn" else "model.backbone")
    for key, value in values.items():
        current = _current_value(cfg, key)
        if not _is_equal(current, value) and not (current is _MISSING and key in rules.optional):
            lines.append(f"{_access(key)} = {_literal(value)}")
            OmegaConf.update(cfg, key, value, force_add=True)  # values that interpolate this key change with it
    return lines


def _stages(cfg: DictConfig, values: dict[str, Any], resnet: str) -> list[str]:
    """Returns the change of builder that groups and dilation need. Removes their keys from `values` if it is not needed."""
    keys = {name: f"{resnet}.stages.{name}" for name in ("num_groups", "width_per_group", "res5_dilation")}
    if "make_bottleneck_stages" in str(OmegaConf.select(cfg, f"{resnet}.stages")["_target_"]):
        return []
    extra = {name: values.pop(key) for name, key in keys.items()}
    if extra == {"num_groups": 1, "width_per_group": 64, "res5_dilation": 1}:
        return []
    arguments = {name: values.pop(f"{resnet}.stages.{name}") for name in ("depth", "norm", "stride_in_1x1")}
    keywords = ", ".join(f"{name}={_literal(value)}" for name, value in {**arguments, **extra}.items())
    return [f"{resnet}.stages = L(make_bottleneck_stages)({keywords})"]


def _part_changes(yaml: YamlReader) -> Iterator[str]:
    """Yields statements for settings that need another part in a LazyConfig rather than another value."""
    train = "dataloader.train"
    flip = yaml("INPUT.RANDOM_FLIP")
    if flip == "none":
        yield f"del {train}.mapper.augmentations[1]"
    elif flip == "vertical":
        yield f"{train}.mapper.augmentations[1].update(horizontal=False, vertical=True)"
    crop, size = yaml("INPUT.CROP.TYPE"), yaml("INPUT.CROP.SIZE")
    if yaml("INPUT.CROP.ENABLED"):
        yield f"{train}.mapper.augmentations.insert(0, L(T.RandomCrop)(crop_type={_literal(crop)}, crop_size={size}))"
        yield f"{train}.mapper.recompute_boxes = {yaml('MODEL.MASK_ON')}"
    threshold = yaml("DATALOADER.REPEAT_THRESHOLD")
    if yaml("DATALOADER.SAMPLER_TRAIN") == "RepeatFactorTrainingSampler":
        yield f'{train}.sampler = L(repeat_factor_sampler)(dataset="${{..dataset}}", threshold={threshold})'
    elif yaml("DATALOADER.SAMPLER_TRAIN") != "TrainingSampler":
        raise InputError(
            f"DATALOADER.SAMPLER_TRAIN={yaml('DATALOADER.SAMPLER_TRAIN')}: expected TrainingSampler or RepeatFactorTrainingSampler"
        )
    if yaml("SOLVER.LR_SCHEDULER_NAME") == "WarmupCosineLR":
        yield "lr_multiplier.scheduler = L(CosineParamScheduler)(start_value=1, end_value=0)"
    yield from _evaluator(yaml("DATASETS.TEST")[0])


def _evaluator(name: str) -> Iterator[str]:
    """Yields a statement for the evaluator that Detectron2's tools/train_net.py uses for a data set, unless it is COCO's."""
    from detectron2.data import MetadataCatalog

    evaluator = _EVALUATORS.get(MetadataCatalog.get(name).get("evaluator_type", "coco"))
    if evaluator:
        output = ', output_dir="${train.output_dir}/inference"' if evaluator == "LVISEvaluator" else ""
        yield f'dataloader.evaluator = L({evaluator})(dataset_name="${{..test.dataset.names}}"{output})'


def _current_value(cfg: DictConfig, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        if OmegaConf.is_list(node):
            node = node[int(part)]
        elif OmegaConf.is_dict(node) and part in node:
            node = node[part]
        else:
            return _MISSING
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _is_equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_is_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-12)  # 0.1 ** 2 is not 0.01
    return bool(a == b)


def _literal(value: Any) -> str:
    """Returns a value as a Python literal, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{name}={_literal(entry)}' for name, entry in value.items())})"
    return repr(value)


def _access(key: str) -> str:
    """Returns a key as a Python expression: ``augmentations.0.max_size`` becomes ``augmentations[0].max_size``."""
    first, *parts = key.split(".")
    return first + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)


_IMPORTS = {
    "T.": "import detectron2.data.transforms as T",
    "L(": "from detectron2.config import LazyCall as L",
    "CosineParamScheduler": "from fvcore.common.param_scheduler import CosineParamScheduler",
    "repeat_factor_sampler": "from maskrcnn_ext.data.mapping.sampling import repeat_factor_sampler",
    "make_bottleneck_stages": "from maskrcnn_ext.modeling.resnet_stages import make_bottleneck_stages",
    **{name: f"from detectron2.evaluation import {name}" for name in _EVALUATORS.values()},
}


def _source(name: str, base: str, changes: list[str]) -> str:
    """Returns the source of the LazyConfig with the imports that its changes need."""
    text = "\n".join(changes)
    imports = sorted(line for word, line in _IMPORTS.items() if word in text)
    differences = " and its differences" if changes else ""
    lines = [
        f'"""{name} as a LazyConfig: {base} of maskrcnn_ext{differences}."""',
        "",
        *imports,
        *([""] if imports else []),
        "from maskrcnn_ext import get_config",
        "",
        f'_base = get_config("{base}")',
        *(f"{section} = _base.{section}" for section in ("model", "dataloader", "optimizer", "lr_multiplier", "train")),
        *([""] if changes else []),
        *changes,
    ]
    return "\n".join(lines) + "\n"
