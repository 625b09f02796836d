"""Imports Mask R-CNN and Faster R-CNN of MMDetection 2 and 3 on a ResNet or ResNeXt with FPN."""

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
from maskrcnn_ext.interop.weights.mmdet.config import STYLES, MMDetSettings, parse_config, read_settings
from maskrcnn_ext.interop.weights.reading import read_checkpoint, shape_of
from maskrcnn_ext.interop.weights.resnet import TENSOR, resnet_rule, set_resnet
from maskrcnn_ext.modeling.mmdet_parts import SymmetricBox2BoxTransform

# Objects beside the weights that are not needed: a run's history, its config as an object.
_FOREIGN = r"(mmengine|mmcv|mmdet|addict)\..*|builtins\.getattr|(pathlib|datetime)\.\w+"


def convert(path: Path, *, style: str | None = None) -> Converted:
    """Converts a checkpoint.

    The order of channels, the place of the strides and the thresholds do not follow from the weights. They are read from the config
    that MMDetection saves in its checkpoints.

    Args:
        path: the ``.pth`` file.
        style: for a checkpoint without a config: "caffe" (B, G, R; pixels not divided; strides in the 1 x 1 convolutions) or "pytorch".
            Everything else is then as in MMDetection's baselines.

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
    settings = _read_settings(path, meta, style)
    conversion = Conversion(str(path), tensors)
    conversion.rename(_RULES)
    conversion.ignore_batch_counts()
    return conversion.finish(_build_config(path, tensors, settings), _read_classes(meta))


def _check_version(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Raises InputError unless the tensors are those of a supported model of MMDetection 2 or 3."""
    version = str(meta.get("mmdet_version", ""))
    if re.match(r"[01]\.", version) or "bbox_head.fc_cls.weight" in tensors:
        raise InputError(
            f"{path}: written by MMDetection {version or '1'}, which counts the background as the first class and ends boxes a pixel "
            "earlier: convert it with MMDetection's tools/model_converters/upgrade_model_version.py first"
        )
    needed = ("backbone.conv1.weight", "neck.fpn_convs.0.conv.weight", "roi_head.bbox_head.fc_cls.weight")
    absent = [key for key in needed if key not in tensors]
    if absent:
        raise InputError(
            f"{path}: not a Mask R-CNN or Faster R-CNN of MMDetection on a ResNet with FPN: {', '.join(absent)} missing"
        )


def _read_settings(path: Path, meta: Mapping[str, Any], style: str | None) -> MMDetSettings:
    """Returns the settings in the config of the file's meta data, or those of a style if it has no config."""
    if style not in (None, *STYLES):
        raise InputError(f"style={style}: expected {' or '.join(STYLES)}")
    text = meta.get("cfg") or meta.get("config")
    if isinstance(text, str):
        try:
            settings = read_settings(parse_config(text), str(path))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: the config in its meta cannot be read ({error})") from error
        if style is not None and settings.stride_in_1x1 != (style == "caffe"):
            raise InputError(f"{path}: style={style} contradicts the config in its meta: remove the style")
        return settings
    if style is None:
        raise InputError(
            f"{path}: no config in its meta, so the order of channels is unknown: set --style caffe or --style pytorch"
        )
    return MMDetSettings.of_style(style)


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


_RPN, _BOX, _MASK = "proposal_generator.rpn_head", "roi_heads.box_predictor", "roi_heads.mask_head"
_RULES: list[Rule] = [
    resnet_rule("backbone"),
    (rf"neck\.lateral_convs\.(\d)\.conv\.{TENSOR}", _fpn_name("lateral")),
    (rf"neck\.fpn_convs\.(\d)\.conv\.{TENSOR}", _fpn_name("output")),
    (rf"rpn_head\.rpn_conv\.{TENSOR}", rf"{_RPN}.conv.\1"),
    (rf"rpn_head\.rpn_cls\.{TENSOR}", rf"{_RPN}.objectness_logits.\1"),
    (rf"rpn_head\.rpn_reg\.{TENSOR}", rf"{_RPN}.anchor_deltas.\1"),
    (rf"roi_head\.bbox_head\.shared_fcs\.(\d)\.{TENSOR}", _numbered("roi_heads.box_head.fc")),
    (rf"roi_head\.bbox_head\.fc_cls\.{TENSOR}", rf"{_BOX}.cls_score.\1"),
    (rf"roi_head\.bbox_head\.fc_reg\.{TENSOR}", rf"{_BOX}.bbox_pred.\1"),
    (rf"roi_head\.mask_head\.convs\.(\d)\.conv\.{TENSOR}", _numbered(f"{_MASK}.mask_fcn")),
    (rf"roi_head\.mask_head\.upsample\.{TENSOR}", rf"{_MASK}.deconv.\1"),
    (rf"roi_head\.mask_head\.conv_logits\.{TENSOR}", rf"{_MASK}.predictor.\1"),
]


def _build_config(path: Path, tensors: Mapping[str, Tensor], settings: MMDetSettings) -> DictConfig:
    """Returns the nearest shipped config with the source's layers and arithmetic."""
    has_masks = "roi_head.mask_head.conv_logits.weight" in tensors
    cfg = get_config(f"{'mask' if has_masks else 'faster'}_rcnn_r50_fpn_3x.py")
    model, heads, rpn = cfg.model, cfg.model.roi_heads, cfg.model.proposal_generator
    order = "RGB" if settings.to_rgb else "BGR"
    model.update(pixel_mean=list(settings.mean), pixel_std=list(settings.std), input_format=order)
    # MMDetection's baselines keep the norms' statistics fixed in training, too (norm_eval).
    set_resnet(
        model.backbone.bottom_up,
        tensors,
        "backbone",
        source=str(path),
        stride_in_1x1=settings.stride_in_1x1,
        norm="FrozenBN",
    )
    anchors = rpn.anchor_generator
    anchors.update(
        sizes=[[settings.anchor_scale * stride] for stride in anchors.strides], aspect_ratios=list(settings.ratios)
    )
    rpn.head.num_anchors = len(settings.ratios)
    for node, stds in ((rpn, settings.rpn_stds), (heads.box_predictor, settings.box_stds)):
        node.box2box_transform.update(_target_=SymmetricBox2BoxTransform, weights=[1 / std for std in stds])
    before, after, threshold, smallest = settings.rpn_test
    rpn.update(pre_nms_topk=[2000, before], post_nms_topk=[1000, after], nms_thresh=threshold, min_box_size=smallest)
    predictor = heads.box_predictor
    heads.num_classes = shape_of(str(path), tensors, "roi_head.bbox_head.fc_cls.weight", 2)[0] - 1
    score, count, threshold = settings.box_test
    predictor.update(test_score_thresh=score, test_topk_per_image=count, test_nms_thresh=threshold)
    if shape_of(str(path), tensors, "roi_head.bbox_head.fc_reg.weight", 2)[0] == 4 and heads.num_classes > 1:
        predictor.cls_agnostic_bbox_reg = True
    if has_masks and shape_of(str(path), tensors, "roi_head.mask_head.conv_logits.weight", 4)[0] == 1:
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
