"""Builds the LazyConfig with which Detectron2 computes what Matterport's Mask R-CNN computes with the same settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from fvcore.common.param_scheduler import LinearParamScheduler
from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.config.zoo import get_config
from maskrcnn_ext.data.mapping.augmentation.resizing import Letterbox
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.matterport.settings import MatterportSettings
from maskrcnn_ext.modeling.matterport.boxes import InclusiveBoxTransform
from maskrcnn_ext.modeling.matterport.layers import MatterportPooler, SamePoolStem
from maskrcnn_ext.modeling.matterport.rcnn import LetterboxRCNN
from maskrcnn_ext.modeling.matterport.roi_heads import MatterportOutputLayers, MatterportROIHeads
from maskrcnn_ext.modeling.matterport.rpn import MatterportRPN

# No limit to the growth of boxes: exp of this is near the largest float32.
_NO_CLAMP = 80.0
_STRIDE = 64


def _weights(deviations: list[float]) -> list[float]:
    """Returns Detectron2's factors of (dx, dy, dw, dh) for standard deviations of (dy, dx, dh, dw)."""
    return [1 / deviations[index] for index in (1, 0, 3, 2)]


_RPN, _HEADS = "model.proposal_generator", "model.roi_heads"
_PREDICTOR = f"{_HEADS}.box_predictor"
# Setting, key of the LazyConfig, and the function that converts the value.
_RULES: tuple[tuple[str, str, Callable[[Any], Any] | None], ...] = (
    ("BACKBONE", "model.backbone.bottom_up.stages.depth", lambda name: int(name.removeprefix("resnet"))),
    ("IMAGE_CHANNEL_COUNT", "model.backbone.bottom_up.stem.in_channels", None),
    ("TOP_DOWN_PYRAMID_SIZE", "model.backbone.out_channels", None),
    ("MEAN_PIXEL", "model.pixel_mean", None),
    # Matterport has width / height, Detectron2 height / width.
    ("RPN_ANCHOR_RATIOS", f"{_RPN}.anchor_generator.aspect_ratios", lambda ratios: [1 / ratio for ratio in ratios]),
    ("RPN_ANCHOR_RATIOS", f"{_RPN}.head.num_anchors", len),
    ("RPN_ANCHOR_SCALES", f"{_RPN}.anchor_generator.sizes", lambda scales: [[scale] for scale in scales]),
    ("RPN_BBOX_STD_DEV", f"{_RPN}.box2box_transform.weights", _weights),
    ("PRE_NMS_LIMIT", f"{_RPN}.pre_nms_topk", lambda limit: [limit, limit]),
    ("POST_NMS_ROIS_TRAINING", f"{_RPN}.post_nms_topk.0", None),
    ("POST_NMS_ROIS_INFERENCE", f"{_RPN}.post_nms_topk.1", None),
    ("RPN_NMS_THRESHOLD", f"{_RPN}.nms_thresh", None),
    ("RPN_TRAIN_ANCHORS_PER_IMAGE", f"{_RPN}.batch_size_per_image", None),
    ("LOSS_WEIGHTS", f"{_RPN}.loss_weight.loss_rpn_cls", lambda weights: weights["rpn_class_loss"]),
    ("LOSS_WEIGHTS", f"{_RPN}.loss_weight.loss_rpn_loc", lambda weights: weights["rpn_bbox_loss"]),
    ("LOSS_WEIGHTS", f"{_PREDICTOR}.loss_weight.loss_cls", lambda weights: weights["mrcnn_class_loss"]),
    ("LOSS_WEIGHTS", f"{_PREDICTOR}.loss_weight.loss_box_reg", lambda weights: weights["mrcnn_bbox_loss"]),
    ("LOSS_WEIGHTS", f"{_HEADS}.mask_head.loss_weight", lambda weights: weights["mrcnn_mask_loss"]),
    # Matterport counts the background as a class.
    ("NUM_CLASSES", f"{_HEADS}.num_classes", lambda count: count - 1),
    ("TRAIN_ROIS_PER_IMAGE", f"{_HEADS}.batch_size_per_image", None),
    ("ROI_POSITIVE_RATIO", f"{_HEADS}.positive_fraction", None),
    ("POOL_SIZE", f"{_HEADS}.box_pooler.output_size", None),
    ("POOL_SIZE", f"{_HEADS}.box_head.input_shape.height", None),
    ("POOL_SIZE", f"{_HEADS}.box_head.input_shape.width", None),
    ("FPN_CLASSIF_FC_LAYERS_SIZE", f"{_HEADS}.box_head.fc_dims", lambda size: [size, size]),
    ("FPN_CLASSIF_FC_LAYERS_SIZE", f"{_PREDICTOR}.input_shape.channels", None),
    ("BBOX_STD_DEV", f"{_PREDICTOR}.box2box_transform.weights", _weights),
    ("DETECTION_MIN_CONFIDENCE", f"{_PREDICTOR}.test_score_thresh", None),
    ("DETECTION_NMS_THRESHOLD", f"{_PREDICTOR}.test_nms_thresh", None),
    ("DETECTION_MAX_INSTANCES", f"{_PREDICTOR}.test_topk_per_image", None),
    ("MASK_POOL_SIZE", f"{_HEADS}.mask_pooler.output_size", None),
    ("MASK_POOL_SIZE", f"{_HEADS}.mask_head.input_shape.height", None),
    ("MASK_POOL_SIZE", f"{_HEADS}.mask_head.input_shape.width", None),
    ("LEARNING_RATE", "optimizer.lr", None),
    ("LEARNING_MOMENTUM", "optimizer.momentum", None),
    # Keras divides the decay of each tensor by its number of elements; no optimizer of torch does.
    ("WEIGHT_DECAY", "optimizer.weight_decay", None),
    ("GRADIENT_CLIP_NORM", "train.clip_grad", lambda norm: norm or None),
    ("STEPS_PER_EPOCH", "train.eval_period", None),
    ("STEPS_PER_EPOCH", "train.checkpointer.period", None),
)


def build_config(settings: MatterportSettings) -> DictConfig:
    """Returns a complete LazyConfig: model, data, optimizer, schedule and run.

    Args:
        settings: the settings; they record which keys they set.

    Raises:
        InputError: the settings contradict each other.
    """
    cfg = get_config("mask_rcnn_r50_fpn_1x.py")
    model, heads = cfg.model, cfg.model.roi_heads
    model._target_ = LetterboxRCNN
    model.backbone.bottom_up.stem._target_ = SamePoolStem
    model.backbone.bottom_up.stages.stride_in_1x1 = True
    model.proposal_generator._target_ = MatterportRPN
    model.proposal_generator.head.conv_dims = [512]
    heads._target_ = MatterportROIHeads
    heads.box_predictor._target_ = MatterportOutputLayers
    heads.box_pooler._target_ = heads.mask_pooler._target_ = MatterportPooler
    for part in (model.proposal_generator, heads.box_predictor):
        part.box2box_transform = L(InclusiveBoxTransform)(weights=[], scale_clamp=_NO_CLAMP)
        part.smooth_l1_beta = 1.0
    # Matterport's learning rate is constant. fvcore's ConstantParamScheduler fails after the last iteration.
    cfg.lr_multiplier = L(LinearParamScheduler)(start_value=1.0, end_value=1.0)
    for name, key, make in _RULES:
        value = settings.take(name, key)
        OmegaConf.update(cfg, key, make(value) if make else value, force_add=True)
    gpus, images = (
        settings.take(name, "dataloader.train.total_batch_size") for name in ("GPU_COUNT", "IMAGES_PER_GPU")
    )
    cfg.dataloader.train.total_batch_size = gpus * images
    side = 2 * settings["MASK_POOL_SIZE"]
    if settings.take("MASK_SHAPE", f"{_HEADS}.mask_head") != [side, side]:
        raise InputError(f"MASK_SHAPE={settings['MASK_SHAPE']}: MASK_POOL_SIZE={side // 2} needs {[side, side]}")
    _set_channels(cfg, settings)
    _set_resizing(cfg, settings)
    return cfg


def _set_channels(cfg: DictConfig, settings: MatterportSettings) -> None:
    """Sets the number of channels and their order, which is R, G, B for three."""
    channels, mean = settings["IMAGE_CHANNEL_COUNT"], settings["MEAN_PIXEL"]
    if len(mean) != channels:
        raise InputError(f"MEAN_PIXEL={mean}: expected {channels} numbers, one for each channel of the weights")
    image_format = {1: "L", 3: "RGB"}.get(channels, "raw")
    cfg.model.update(pixel_std=[1.0] * channels, input_format=image_format)
    cfg.dataloader.train.mapper.image_format = image_format
    # SafeMapper reads any number of channels, and masks of every kind.
    cfg.dataloader.train.mapper._target_ = cfg.dataloader.test.mapper._target_ = SafeMapper


def _set_resizing(cfg: DictConfig, settings: MatterportSettings) -> None:
    """Sets how images are resized and padded: both mappers resize; in training the mapper pads, in prediction the model."""
    train, test = cfg.dataloader.train.mapper, cfg.dataloader.test.mapper
    keys = [f"dataloader.{split}.mapper.augmentations.0" for split in ("train", "test")]
    mode = settings.take("IMAGE_RESIZE_MODE", *keys, "model.square_size")
    if mode not in ("square", "pad64", "none", "crop"):
        raise InputError(f"IMAGE_RESIZE_MODE={mode!r}: expected square, pad64, none or crop")
    sizes = {"min_dim": "IMAGE_MIN_DIM", "max_dim": "IMAGE_MAX_DIM", "min_scale": "IMAGE_MIN_SCALE"}
    values = {argument: settings.take(name, *(f"{key}.{argument}" for key in keys)) for argument, name in sizes.items()}
    if mode != "square":  # the other modes do not use it
        values["max_dim"] = None
    if mode == "none":
        values = dict.fromkeys(values)
    if mode == "square" and (values["max_dim"] == 0 or values["max_dim"] % _STRIDE):
        raise InputError(f"IMAGE_MAX_DIM={values['max_dim']}: expected a multiple of {_STRIDE}")
    cfg.model.square_size = values["max_dim"] or 0
    test.augmentations = [L(Letterbox)(**values)]
    train.augmentations[0] = L(Letterbox)(**values, pad="square" if mode == "square" else "pad64")
    if mode == "crop":
        if not values["min_dim"]:
            raise InputError("IMAGE_RESIZE_MODE='crop' with IMAGE_MIN_DIM=0: expected the side of the crops")
        side = values["min_dim"]
        train.augmentations[0] = L(Letterbox)(**values)
        train.augmentations.insert(1, L(T.RandomCrop)(crop_type="absolute", crop_size=[side, side]))
        train.recompute_boxes = True
