"""Imports torchvision's R-CNNs on a ResNet with FPN: ``maskrcnn_resnet50_fpn``, its ``_v2``, keypoints, and boxes only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from detectron2.config import LazyCall as L
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.common.tensor_files import find_weights
from maskrcnn_ext.config.zoo import get_config
from maskrcnn_ext.data.mapping.augmentation.resizing import PlainResize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import Conversion, Converted, Rule
from maskrcnn_ext.interop.weights.reading import read_checkpoint, shape_of
from maskrcnn_ext.interop.weights.resnet import TENSOR, resnet_rule, set_resnet
from maskrcnn_ext.modeling.torchvision_parts import TorchvisionAnchorGenerator, TorchvisionRCNN

# Epsilon of every norm that Detectron2 builds.
_EPS = 1e-5
_HEADS = r"roi_heads\."


def convert(path: Path, *, bn_eps: float | None = None) -> Converted:
    """Converts a state dict.

    Args:
        path: a file written by ``torch.save(model.state_dict(), ...)``, or by a training script as ``{"model": ...}``.
        bn_eps: epsilon of the norms in the source's backbone. Torchvision sets it to 0 for models with the weights ``COCO_V1`` (not for
            ``_v2``) and for models fine-tuned from them, but no file contains it. If None, it is 0 for torchvision's own files, which
            are recognised by their hash, and 1e-5 for others.

    Raises:
        InputError: the file cannot be read, contains another model, or has an unknown key.

    Example::

        write_model(convert(Path("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth")), Path("imported"))
    """
    tensors = find_weights(path, read_checkpoint(path))
    if not {"backbone.body.conv1.weight", "rpn.head.cls_logits.weight"} <= tensors.keys():
        raise InputError(
            f"{path}: not a detector of torchvision on a ResNet with FPN, such as maskrcnn_resnet50_fpn: backbone.body.conv1.weight or "
            "rpn.head.cls_logits.weight is missing"
        )
    if bn_eps is None:
        bn_eps = 0.0 if _is_coco_v1(path) else _EPS
    for key in tensors:
        if re.fullmatch(r"backbone\.body\..*running_var", key):
            tensors[key] = tensors[key] + (bn_eps - _EPS)  # Detectron2 adds its epsilon
    conversion = Conversion(str(path), tensors)
    # Detectron2's RPN has a sequence of several convolutions, but a single one under its own name.
    several = r".conv\1" if "rpn.head.conv.1.0.weight" in tensors else ""
    conversion.rename(
        [(rf"rpn\.head\.conv(?:\.(\d)\.0)?\.{TENSOR}", rf"proposal_generator.rpn_head.conv{several}.\2"), *_RULES]
    )
    box, mask = "roi_heads.box_predictor", "roi_heads.mask_predictor.mask_fcn_logits"
    # The background is torchvision's first class and Detectron2's last.
    for kind in ("weight", "bias"):
        conversion.put(f"{box}.cls_score.{kind}", f"{box}.cls_score.{kind}", make=lambda rows: rows.roll(-1, 0))
        conversion.put(f"{box}.bbox_pred.{kind}", f"{box}.bbox_pred.{kind}", make=lambda rows: rows[4:])
        if f"{mask}.{kind}" in tensors:
            conversion.put(f"roi_heads.mask_head.predictor.{kind}", f"{mask}.{kind}", make=lambda rows: rows[1:])
    conversion.ignore_batch_counts()
    config = _build_config(path, tensors)
    return conversion.finish(config, _known_classes(config))


def _is_coco_v1(path: Path) -> bool:
    """Returns whether torchvision sets the epsilons to 0 for this file, whose name in the URL ends with the start of its SHA-256."""
    from torchvision.models import detection

    with_zero_eps = (
        detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
        detection.KeypointRCNN_ResNet50_FPN_Weights.COCO_V1,
        detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return any(digest.startswith(Path(weights.url).stem.rpartition("-")[2]) for weights in with_zero_eps)


def _fpn_name(match: re.Match[str]) -> str:
    """Returns Detectron2's name of an FPN convolution."""
    kind, level, norm, tensor = match.groups()
    conv = {"inner": "lateral", "layer": "output"}[kind]
    return f"backbone.fpn_{conv}{int(level) + 2}.{'norm.' if norm == '.1' else ''}{tensor}"


def _numbered(name: str, step: int = 1) -> Callable[[re.Match[str]], str]:
    """Returns a function that names layer n * `step` of a sequence `name` and n + 1; a second number of 1 means its norm."""

    def rename(match: re.Match[str]) -> str:
        index, *norm, tensor = match.groups()
        return f"{name}{int(index) // step + 1}.{'norm.' if norm == ['1'] else ''}{tensor}"

    return rename


# The tensors that do not depend on the classes. Torchvision before 0.13 omits the number of a layer in its block.
_RULES: list[Rule] = [
    resnet_rule(r"backbone\.body"),
    (rf"backbone\.fpn\.(inner|layer)_blocks\.(\d)(\.\d)?\.{TENSOR}", _fpn_name),
    (rf"rpn\.head\.cls_logits\.{TENSOR}", r"proposal_generator.rpn_head.objectness_logits.\1"),
    (rf"rpn\.head\.bbox_pred\.{TENSOR}", r"proposal_generator.rpn_head.anchor_deltas.\1"),
    (rf"{_HEADS}box_head\.fc6\.{TENSOR}", r"roi_heads.box_head.fc1.\1"),
    (rf"{_HEADS}box_head\.fc7\.{TENSOR}", r"roi_heads.box_head.fc2.\1"),
    (rf"{_HEADS}box_head\.(\d+)\.(\d)\.{TENSOR}", _numbered("roi_heads.box_head.conv")),
    (rf"{_HEADS}box_head\.\d+\.{TENSOR}", r"roi_heads.box_head.fc1.\1"),
    (rf"{_HEADS}mask_head\.mask_fcn(\d)\.{TENSOR}", r"roi_heads.mask_head.mask_fcn\1.\2"),
    (rf"{_HEADS}mask_head\.(\d+)\.(\d)\.{TENSOR}", _numbered("roi_heads.mask_head.mask_fcn")),
    (rf"{_HEADS}mask_predictor\.conv5_mask\.{TENSOR}", r"roi_heads.mask_head.deconv.\1"),
    (rf"{_HEADS}keypoint_head\.(\d+)\.{TENSOR}", _numbered("roi_heads.keypoint_head.conv_fcn", step=2)),
    (rf"{_HEADS}keypoint_predictor\.kps_score_lowres\.{TENSOR}", r"roi_heads.keypoint_head.score_lowres.\1"),
]


def _build_config(path: Path, tensors: Mapping[str, Tensor]) -> DictConfig:
    """Returns the nearest shipped config with torchvision's layers and arithmetic."""
    kind = next((kind for kind in ("mask", "keypoint") if any(f"{kind}_predictor" in key for key in tensors)), "faster")
    cfg = get_config(f"{kind}_rcnn_r50_fpn_3x.py")
    model, heads, rpn = cfg.model, cfg.model.roi_heads, cfg.model.proposal_generator
    norm = "BN" if any(re.fullmatch(r"backbone\.body\..*num_batches_tracked", key) for key in tensors) else "FrozenBN"
    set_resnet(model.backbone.bottom_up, tensors, "backbone.body", source=str(path), stride_in_1x1=False, norm=norm)
    model.update(pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375], input_format="RGB")
    rpn.anchor_generator._target_ = TorchvisionAnchorGenerator
    rpn.update(min_box_size=1e-3, post_nms_topk=[2000, 1000])
    heads.num_classes = shape_of(str(path), tensors, "roi_heads.box_predictor.cls_score.weight", 2)[0] - 1
    for name in ("box_pooler", "mask_pooler", "keypoint_pooler"):
        if name in heads:
            heads[name].update(pooler_type="ROIAlign", sampling_ratio=2)
    if "backbone.fpn.inner_blocks.0.1.weight" in tensors:  # _v2
        model.backbone.norm = "BN"
        rpn.head.conv_dims = [-1, -1]
        heads.box_head.update(conv_dims=[256] * 4, fc_dims=[1024], conv_norm="BN")
        if kind == "mask":
            heads.mask_head.conv_norm = "BN"
    if kind == "mask":
        model._target_ = TorchvisionRCNN
    if kind == "keypoint":
        heads.keypoint_head.num_keypoints = shape_of(
            str(path), tensors, "roi_heads.keypoint_predictor.kps_score_lowres.weight", 4
        )[1]
    mapper = cfg.dataloader.test.mapper
    mapper.augmentations = [L(PlainResize)(short_edge_length=800, max_size=1333, style="torchvision")]
    cfg.dataloader.train.mapper.image_format = "RGB"  # the test mapper follows
    return cfg


def _known_classes(cfg: DictConfig) -> list[str] | None:
    """Returns the class names of torchvision's own models, which are recognised by the number of classes."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    number = cfg.model.roi_heads.num_classes
    if "keypoint_head" in cfg.model.roi_heads and number == 1:
        return ["person"]
    names = MaskRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"][1:]
    # COCO's ids from 1 to 90, ten of which it does not use.
    return (
        [f"N/A {id}" if name == "N/A" else name for id, name in enumerate(names, 1)] if number == len(names) else None
    )
