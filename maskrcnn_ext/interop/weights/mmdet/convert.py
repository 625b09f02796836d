"""Imports Mask R-CNN, Faster R-CNN and their cascades of MMDetection 2 and 3, with FPN."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.common.tensor_files import find_weights
from maskrcnn_ext.config.zoo import get_config
from maskrcnn_ext.data.mapping.augmentation.resizing import PlainResize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Conversion, Converted, Rule
from maskrcnn_ext.interop.weights.mmdet.backbones import find_family, map_backbone, set_backbone
from maskrcnn_ext.interop.weights.mmdet.config import STYLES, MMDetSettings, parse_config, read_settings
from maskrcnn_ext.interop.weights.reading import read_checkpoint, shape_of
from maskrcnn_ext.interop.weights.resnet import TENSOR
from maskrcnn_ext.modeling.mmdet_parts import MeanLogitCascadeROIHeads, MeanMaskHead, SymmetricBox2BoxTransform

# Objects beside the weights that are not needed: a run's history, its config as an object.
_FOREIGN = r"(mmengine|mmcv|mmdet|addict)\..*|builtins\.getattr|(pathlib|datetime)\.\w+"


def convert(path: Path, *, style: str | None = None) -> Converted:
    """Converts a checkpoint.

    The order of channels, the place of the strides and the thresholds do not follow from the weights. They are read from the config
    that MMDetection saves in its checkpoints.

    Args:
        path: the ``.pth`` file.
        style: for a ResNet's checkpoint without a config: "caffe" (B, G, R; pixels not divided; strides in the 1 x 1 convolutions) or
            "pytorch". Everything else is then as in MMDetection's baselines, as it is for other backbones without a config.

    Raises:
        InputError: the file cannot be read, was written by MMDetection 1, contains another model or an unknown key, or has no config and
            no style is given.

    Example::

        write_model(convert(Path("mask_rcnn_r50_fpn_1x_coco.pth")), Path("imported"))
    """
    found = read_checkpoint(path, foreign=_FOREIGN)
    tensors = find_weights(path, found)
    meta = found.get("meta") if isinstance(found, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    _check_version(path, tensors, meta)
    family, stages = find_family(str(path), tensors), _count_stages(path, tensors)
    settings = _read_settings(path, meta, style, family, stages)
    conversion = Conversion(str(path), tensors)
    map_backbone(conversion, tensors, family, settings)
    conversion.rename(_RULES)
    conversion.ignore_batch_counts()
    return conversion.finish(_build_config(path, tensors, settings, family, stages), _read_classes(meta))


def _check_version(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Raises InputError unless the tensors are those of a supported model of MMDetection 2 or 3."""
    version = str(meta.get("mmdet_version", ""))
    if re.match(r"[01]\.", version) or "bbox_head.fc_cls.weight" in tensors:
        raise InputError(
            f"{path}: written by MMDetection {version or '1'}, which counts the background as the first class and ends boxes a pixel "
            "earlier: convert it with MMDetection's tools/model_converters/upgrade_model_version.py first"
        )
    needed = ("neck.fpn_convs.0.conv.weight", "rpn_head.rpn_cls.weight")
    absent = [key for key in needed if key not in tensors]
    if _box_key(tensors, "fc_cls") not in tensors:
        absent.append("roi_head.bbox_head.fc_cls.weight")
    if absent:
        raise InputError(
            f"{path}: not a Mask R-CNN, Faster R-CNN or cascade of MMDetection with FPN: {', '.join(absent)} missing"
        )


def _box_key(tensors: Mapping[str, Tensor], layer: str, stage: int = 0) -> str:
    """Returns the key of the weight of a layer of a box head; the heads of a cascade have numbers."""
    number = "" if "roi_head.bbox_head.fc_cls.weight" in tensors else f"{stage}."
    return f"roi_head.bbox_head.{number}{layer}.weight"


def _count_stages(path: Path, tensors: Mapping[str, Tensor]) -> int | None:
    """Returns the number of box heads of a cascade; None for one head without a number."""
    heads = {}
    for kind in ("bbox_head", "mask_head"):
        found = {int(match[1]) for key in tensors if (match := re.match(rf"roi_head\.{kind}\.(\d+)\.", key))}
        heads[kind] = len(found)
        if found != set(range(len(found))):
            raise InputError(f"{path}: the roi_head.{kind} are {sorted(found)}: one is missing")
    boxes, masks = heads.values()
    has_masks = any(key.startswith("roi_head.mask_head.") for key in tensors)
    if has_masks and boxes != masks:
        raise InputError(f"{path}: {boxes or 'one'} roi_head.bbox_head and {masks or 'one'} roi_head.mask_head")
    return boxes or None


def _read_settings(
    path: Path, meta: Mapping[str, Any], style: str | None, family: str, stages: int | None
) -> MMDetSettings:
    """Returns the settings in the config of the file's meta data, or those of a style if it has no config."""
    if style not in (None, *STYLES):
        raise InputError(f"style={style}: expected {' or '.join(STYLES)}")
    if style is not None and family != "resnet":
        raise InputError(f"{path}: style={style} is for ResNets, and the backbone is a {family}: remove the style")
    text = meta.get("cfg") or meta.get("config")
    if isinstance(text, str):
        try:
            settings = read_settings(parse_config(text), str(path), family=family, stages=stages)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: the config in its meta cannot be read ({error})") from error
        if style is not None and settings.stride_in_1x1 != (style == "caffe"):
            raise InputError(f"{path}: style={style} contradicts the config in its meta: remove the style")
        return settings
    if family == "resnet" and style is None:
        raise InputError(
            f"{path}: no config in its meta, so the order of channels is unknown: set --style caffe or --style pytorch"
        )
    try:
        return MMDetSettings.of_baseline(style or family, stages or 1)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_classes(meta: Mapping[str, Any]) -> list[str] | None:
    """Returns the class names in the file's meta data."""
    data = meta.get("dataset_meta")
    data = data if isinstance(data, Mapping) else meta
    names = data.get("classes") or data.get("CLASSES")
    if isinstance(names, str):
        return [names]
    return [str(name) for name in names] if isinstance(names, list | tuple) else None


def _fpn_name(conv: str) -> Callable[[re.Match[str]], str]:
    """Returns a function that returns Detectron2's name of an FPN convolution."""
    return lambda match: f"backbone.fpn_{conv}{int(match[1]) + 2}.{match[2]}"


def _numbered(name: str) -> Callable[[re.Match[str]], str]:
    """Returns a function that names layer n of a sequence `name` and n + 1."""
    return lambda match: f"{name}{int(match[1]) + 1}.{match[2]}"


def _in_stage(part: str, name: str, *, norm: bool = False) -> Callable[[re.Match[str]], str]:
    """Returns a function that names a tensor of a box head; the first group of the match is the stage of a cascade, if any.

    Args:
        part: of the RoI heads.
        name: of the layer; with a group for the number of the layer, layer n becomes n + 1.
        norm: whether a group before the last distinguishes the norm from the convolution.
    """

    def rename(match: re.Match[str]) -> str:
        stage, *middle, tensor = match.groups()
        suffix = ".norm" if norm and middle.pop() == "bn" else ""
        number = str(int(middle[0]) + 1) if middle else ""
        return f"roi_heads.{part}.{'' if stage is None else stage + '.'}{name}{number}{suffix}.{tensor}"

    return rename


def _in_mask_head(name: str) -> Callable[[re.Match[str]], str]:
    """Returns a function that names a tensor of a mask head; see :func:`_in_stage`."""

    def rename(match: re.Match[str]) -> str:
        stage, *middle, tensor = match.groups()
        number = str(int(middle[0]) + 1) if middle else ""
        return f"roi_heads.mask_head.{'' if stage is None else f'heads.{stage}.'}{name}{number}.{tensor}"

    return rename


_RPN = "proposal_generator.rpn_head"
_BOX, _MASK = (rf"roi_head\.{kind}_head\.(?:(\d)\.)?" for kind in ("bbox", "mask"))
_RULES: list[Rule] = [
    (rf"neck\.lateral_convs\.(\d)\.conv\.{TENSOR}", _fpn_name("lateral")),
    (rf"neck\.fpn_convs\.(\d)\.conv\.{TENSOR}", _fpn_name("output")),
    (rf"rpn_head\.rpn_conv\.{TENSOR}", rf"{_RPN}.conv.\1"),
    (rf"rpn_head\.rpn_cls\.{TENSOR}", rf"{_RPN}.objectness_logits.\1"),
    (rf"rpn_head\.rpn_reg\.{TENSOR}", rf"{_RPN}.anchor_deltas.\1"),
    (rf"{_BOX}shared_convs\.(\d)\.(conv|bn)\.{TENSOR}", _in_stage("box_head", "conv", norm=True)),
    (rf"{_BOX}shared_fcs\.(\d)\.{TENSOR}", _in_stage("box_head", "fc")),
    (rf"{_BOX}fc_cls\.{TENSOR}", _in_stage("box_predictor", "cls_score")),
    (rf"{_BOX}fc_reg\.{TENSOR}", _in_stage("box_predictor", "bbox_pred")),
    (rf"{_MASK}convs\.(\d)\.conv\.{TENSOR}", _in_mask_head("mask_fcn")),
    (rf"{_MASK}upsample\.{TENSOR}", _in_mask_head("deconv")),
    (rf"{_MASK}conv_logits\.{TENSOR}", _in_mask_head("predictor")),
]


def _build_config(
    path: Path, tensors: Mapping[str, Tensor], settings: MMDetSettings, family: str, stages: int | None
) -> DictConfig:
    """Returns the nearest shipped config with the source's layers and arithmetic."""
    has_masks = any(key.startswith("roi_head.mask_head.") for key in tensors)
    detector = "cascade_mask" if stages else "mask" if has_masks else "faster"
    cfg = get_config(f"{detector}_rcnn_r50_fpn_3x.py")
    model, heads, rpn = cfg.model, cfg.model.roi_heads, cfg.model.proposal_generator
    order = "RGB" if settings.to_rgb else "BGR"
    model.update(pixel_mean=list(settings.mean), pixel_std=list(settings.std), input_format=order)
    set_backbone(cfg, str(path), tensors, family, settings)
    anchors = rpn.anchor_generator
    anchors.update(
        sizes=[[settings.anchor_scale * stride] for stride in anchors.strides], aspect_ratios=list(settings.ratios)
    )
    rpn.head.num_anchors = len(settings.ratios)
    rpn.box2box_transform.update(_target_=SymmetricBox2BoxTransform, weights=[1 / std for std in settings.rpn_stds])
    before, after, threshold, smallest = settings.rpn_test
    rpn.update(pre_nms_topk=[2000, before], post_nms_topk=[1000, after], nms_thresh=threshold, min_box_size=smallest)
    heads.num_classes = shape_of(str(path), tensors, _box_key(tensors, "fc_cls"), 2)[0] - 1
    if stages:
        _set_cascade(heads, stages, has_masks)
    box_heads = heads.box_heads if stages else [heads.box_head]
    predictors = heads.box_predictors if stages else [heads.box_predictor]
    for stage, (box_head, predictor) in enumerate(zip(box_heads, predictors, strict=True)):
        _set_box_head(str(path), tensors, stage, box_head, predictor, settings)
        if shape_of(str(path), tensors, _box_key(tensors, "fc_cls", stage), 2)[0] != heads.num_classes + 1:
            raise InputError(f"{path}: roi_head.bbox_head.{stage} has other classes than roi_head.bbox_head.0")
        regression = shape_of(str(path), tensors, _box_key(tensors, "fc_reg", stage), 2)[0]
        predictor.cls_agnostic_bbox_reg = regression == 4 and heads.num_classes > 1
    mask_key = f"roi_head.mask_head.{'0.' if stages else ''}conv_logits.weight"
    if has_masks and shape_of(str(path), tensors, mask_key, 4)[0] == 1:
        heads.mask_head.num_classes = 1
    poolers = zip(("box_pooler", "mask_pooler"), settings.sampling_ratios, settings.aligned, strict=True)
    for name, sampling, aligned in poolers:
        if name in heads:
            heads[name].update(sampling_ratio=sampling, pooler_type="ROIAlignV2" if aligned else "ROIAlign")
    longest, shortest = settings.scale
    cfg.dataloader.test.mapper.augmentations = [
        L(PlainResize)(short_edge_length=shortest, max_size=longest, style="opencv")
    ]
    cfg.dataloader.train.mapper.image_format = order  # the test mapper follows
    return cfg


def _set_cascade(heads: DictConfig, stages: int, has_masks: bool) -> None:
    """Sets the number of stages of a cascade's RoI heads, and how MMDetection joins them."""
    heads._target_ = MeanLogitCascadeROIHeads
    for name in ("box_heads", "box_predictors", "proposal_matchers"):
        # A stage beyond the config's is trained as its last.
        heads[name] = [heads[name][min(stage, len(heads[name]) - 1)] for stage in range(stages)]
    if has_masks:
        heads.mask_head.update(_target_=MeanMaskHead, num_heads=stages)
    else:
        for name in ("mask_in_features", "mask_pooler", "mask_head"):
            del heads[name]


def _set_box_head(
    source: str,
    tensors: Mapping[str, Tensor],
    stage: int,
    box_head: DictConfig,
    predictor: DictConfig,
    settings: MMDetSettings,
) -> None:
    """Sets the layers, deltas and thresholds of one box head."""
    convs, norms, fcs = (
        [tensors[key] for number in range(10) if (key := _box_key(tensors, f"{name}.{number}{end}", stage)) in tensors]
        for name, end in (("shared_convs", ".conv"), ("shared_convs", ".bn"), ("shared_fcs", ""))
    )
    box_head.update(conv_dims=[len(conv) for conv in convs], fc_dims=[len(fc) for fc in fcs])
    if norms:
        box_head.conv_norm = "BN"
    shape_of(source, tensors, _box_key(tensors, "shared_fcs.0", stage), 2)
    predictor.input_shape.channels = box_head.fc_dims[-1]
    stds = settings.box_stds[stage]
    predictor.box2box_transform.update(_target_=SymmetricBox2BoxTransform, weights=[1 / std for std in stds])
    score, count, threshold = settings.box_test
    predictor.update(test_score_thresh=score, test_topk_per_image=count, test_nms_thresh=threshold)
