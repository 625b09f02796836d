"""Small detectors with random weights under which every part matters, for the tests of exported models."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import instantiate
from torch import nn

from maskrcnn_ext.config.overrides import apply_overrides
from maskrcnn_ext.config.zoo import get_config
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.interop.export.recipe import Recipe
from tests.helpers.calibration import calibrate

NUM_CLASSES = 5
CLASSES = Classes(names=("a", "b", "c", "d", "e"), category_ids=(1, 2, 3, 5, 8))
SETTINGS = [
    f"model.roi_heads.num_classes={NUM_CLASSES}",
    "dataloader.test.mapper.augmentations.0.short_edge_length=160",
    "dataloader.test.mapper.augmentations.0.max_size=256",
    "model.backbone.out_channels=32",
    "model.roi_heads.box_head.fc_dims=[64,64]",
    "model.roi_heads.box_predictor.input_shape.channels=64",
    "model.roi_heads.mask_head.conv_dims=[32,32]",
]
# Of a model that takes images as they are.
RECIPE = Recipe(
    image_format="BGR",
    resize="none",
    short_edge=0,
    long_edge=0,
    pixel_mean=(1.0, 2.0, 3.0),
    pixel_std=(1.0, 1.0, 1.0),
    size_divisibility=32,
    class_names=("a",),
    category_ids=(1,),
    keypoint_names=(),
    output_names=("boxes", "scores", "classes"),
    score_threshold=0.05,
    nms_threshold=0.5,
    max_detections=100,
)


def build(config="mask_rcnn_r18_fpn_scratch", overrides=(), settings=SETTINGS):
    """Returns a calibrated model in evaluation mode, and its mapper."""
    cfg = apply_overrides(get_config(f"{config}.py"), [*settings, *overrides])
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    heads = model.roi_heads
    predictors = heads.box_predictor if isinstance(heads.box_predictor, nn.ModuleList) else [heads.box_predictor]
    for later in predictors[1:]:
        nn.init.normal_(later.cls_score.weight, std=0.1)
        nn.init.normal_(later.bbox_pred.weight, std=0.02)
    rpn = model.proposal_generator.rpn_head
    predictor = getattr(getattr(heads, "mask_head", None), "predictor", None)

    def run(images):
        with torch.no_grad():
            for image in images:
                model.backbone(model.preprocess_image([{"image": tensor(image)}]).tensor)

    calibrate(
        model,
        run,
        objectness=rpn.objectness_logits,
        deltas=rpn.anchor_deltas,
        scores=predictors[0].cls_score,
        box_deltas=predictors[0].bbox_pred,
        mask_logits=predictor if isinstance(predictor, nn.Conv2d) else None,
    )
    return model.eval(), instantiate(cfg.dataloader.test.mapper)


def tensor(image):
    """(H, W, C) to (C, H, W) float32."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
