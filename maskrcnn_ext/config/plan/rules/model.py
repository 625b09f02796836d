"""Chooses the base config: network, pre-trained weights, frozen stages, and what is predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from maskrcnn_ext.config.plan.choice import Call, Choice
from maskrcnn_ext.config.plan.machine import COCO, COCO_KEYPOINTS, IMAGENET_R50, LITE, TIMM_CONVNEXT, TIMM_LITE
from maskrcnn_ext.config.plan.situation import Situation

# The rate falls tenfold at 70 % and 90 % of the run after a tenth of warm-up, as in configs/common/schedule/short.py.
_SHORT_SCHEDULE = {
    "lr_multiplier.scheduler.milestones": [70, 90, 100],
    "lr_multiplier.warmup_length": 0.1,
    "lr_multiplier.warmup_factor": 0.01,
}


# Channels of feature maps and heads on a CPU, where their time decides how many images a training sees (docs/own_data.md, Measured).
_CPU_CHANNELS = 64


@dataclass(frozen=True)
class Base:
    """A network with its weights and the rate that it trains at.

    Attributes:
        config: the shipped config for masks.
        name: the network in a few words.
        weights: the address of its weights, which :class:`~maskrcnn_ext.config.plan.machine.Machine` lists; "" for random weights.
        weights_name: the weights in a few words.
        rate: learning rate at `rate_images` images.
        rate_images: see `rate`.
        uses_sgd: whether the rate grows with the number of images; for AdamW it grows with the square root.
        settings: differences from the config.
    """

    config: str
    name: str
    weights: str
    weights_name: str
    rate: float
    rate_images: int
    uses_sgd: bool
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def is_timm(self) -> bool:
        """Whether the backbone is one of timm, which adapts its stem to the image's channels."""
        return self.weights in (LITE, TIMM_LITE, TIMM_CONVNEXT)


_R50 = Base(
    *("mask_rcnn_r50_fpn_3x.py", "R50-FPN", COCO, "COCO weights", 0.02, 16, True),
    (("train.init_checkpoint", COCO), *_SHORT_SCHEDULE.items()),
)
_R50_IMAGENET = Base(
    *("mask_rcnn_r50_fpn_1x.py", "R50-FPN", IMAGENET_R50, "ImageNet weights", 0.02, 16, True),
    tuple(_SHORT_SCHEDULE.items()),
)
_LITE = Base(
    *(
        "mask_rcnn_efficientnet_lite0_fpn_finetune.py",
        "EfficientNet-Lite0 FPN",
        LITE,
        "ImageNet weights",
        5e-4,
        2,
        False,
    )
)
_TIMM_LITE = replace(_LITE, weights=TIMM_LITE, settings=(("model.backbone.bottom_up.pretrained", True),))
_CONVNEXT = Base(
    *("mask_rcnn_convnext_tiny_fpn_3x.py", "ConvNeXt-T FPN", TIMM_CONVNEXT, "ImageNet weights", 1e-4, 16, False),
    tuple(_SHORT_SCHEDULE.items()),
)
_SCRATCH = Base("mask_rcnn_r18_fpn_scratch.py", "R18-FPN", "", "random weights", 1e-3, 4, False)


def _slim(base: Base, rate: float) -> Base:
    """Returns a base whose feature maps and heads have few channels."""
    settings = (
        ("model.backbone.out_channels", _CPU_CHANNELS),
        ("model.roi_heads.box_head.fc_dims", [4 * _CPU_CHANNELS] * 2),
        ("model.roi_heads.box_predictor.input_shape.channels", 4 * _CPU_CHANNELS),
        ("model.roi_heads.mask_head.conv_dims", [_CPU_CHANNELS] * 5),
    )
    name = f"{base.name} of {_CPU_CHANNELS} channels"
    return replace(base, name=name, rate=rate, settings=(*base.settings, *settings))


# The first that fits is used.
_ON_GPU = [_R50, _R50_IMAGENET, _CONVNEXT, _LITE, _TIMM_LITE, _SCRATCH]
_ON_CPU = [_R50, _slim(_LITE, rate=1e-3), _slim(_TIMM_LITE, rate=1e-3), _slim(_SCRATCH, rate=_SCRATCH.rate)]

_R50_KEYPOINTS = Base(
    *("keypoint_rcnn_r50_fpn_3x.py", "R50-FPN", COCO_KEYPOINTS, "COCO's weights of people", 0.02, 16, True),
    (("train.init_checkpoint", COCO_KEYPOINTS), *_SHORT_SCHEDULE.items()),
)
_BACKBONE = Call(
    "maskrcnn_ext.TimmBackbone",
    {
        "name": "tf_efficientnet_lite0",
        "out_features": ["res2", "res3", "res4", "res5"],
        "pretrained": LITE,
        "freeze_at": 2,
        "pixel_mean": "${...pixel_mean}",
        "pixel_std": "${...pixel_std}",
        "input_format": "${...input_format}",
    },
)
_LITE_KEYPOINTS = Base(
    *("keypoint_rcnn_r18_fpn_scratch.py", "EfficientNet-Lite0 FPN", LITE, "ImageNet weights", 1e-3, 4, False),
    (("model.backbone.bottom_up", _BACKBONE),),
)
_SCRATCH_KEYPOINTS = Base("keypoint_rcnn_r18_fpn_scratch.py", "R18-FPN", "", "random weights", 1e-3, 4, False)


def choose_base(situation: Situation) -> Base:
    """Returns the first base whose weights are on the machine and fit the pixels.

    COCO's weights are a whole detector, so they come first. On a GPU ResNet-50 and ConvNeXt-T are fast enough for ImageNet's weights too.
    Without a download, EfficientNet-Lite0 is the network whose weights a package has.
    """
    if situation.has_keypoints:
        bases = [_R50_KEYPOINTS, _LITE_KEYPOINTS, _SCRATCH_KEYPOINTS]
    else:
        bases = _ON_GPU if situation.machine.has_gpu else _ON_CPU
    return next(base for base in bases if not base.weights or base.weights in situation.machine.weights)


def choose_model(situation: Situation, base: Base) -> Choice:
    """Returns the choice of network, weights and outputs."""
    objects = situation.objects
    settings: dict[str, Any] = dict(base.settings)
    settings["model.roi_heads.num_classes"] = len(objects.classes)
    outputs = "masks"
    if situation.has_keypoints:
        outputs = f"{len(objects.keypoints)} keypoints" + (" and masks" if situation.has_masks else "")
        settings["model.roi_heads.keypoint_head.num_keypoints"] = len(objects.keypoints)
        if len(objects.keypoints) != 17:  # COCO's tolerances are for its own keypoints
            settings["dataloader.evaluator.kpt_oks_sigmas"] = [0.05] * len(objects.keypoints)
    elif not situation.has_masks:
        outputs = "boxes only"
        settings.pop("model.roi_heads.mask_head.conv_dims", None)
        settings |= {f"model.roi_heads.{key}": None for key in ("mask_in_features", "mask_pooler", "mask_head")}
        settings["dataloader.train.mapper.use_instance_mask"] = False
    return Choice("model", f"{base.name}, {base.weights_name}; {outputs}", _reason(situation, base), settings)


def config_of(situation: Situation, base: Base) -> str:
    """Returns the shipped config of a base for what is predicted."""
    return f"mask_{base.config}" if situation.has_keypoints and situation.has_masks else base.config


def _reason(situation: Situation, base: Base) -> str:
    machine, objects = situation.machine, situation.objects
    if not base.weights:
        reason = "no pre-trained weights on this machine"
    elif base.weights in (COCO, COCO_KEYPOINTS):
        reason = "a trained detector is in the cache"
    else:
        reason = "no COCO weights on this machine"
    outlined = "" if objects.outlined in (0, 1) else f"; {objects.outlined:.0%} of the objects have outlines"
    return f"{reason}; {machine.description}{outlined}"
