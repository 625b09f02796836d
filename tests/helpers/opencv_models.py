"""Models exported for OpenCV, with Detectron2's predictions to compare with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from maskrcnn_ext import get_config
from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.recipe import build_recipe
from tests.helpers.calibration import calibrate


def build(name, *, edges=(128, 256), thaw=False, top=40, fpn_norm=None, **heads):
    """Returns a calibrated model of a shipped config, its recipe, and a function that predicts with Detectron2."""
    config = get_config(name)
    config.model.roi_heads.update(heads)
    config.model.roi_heads.box_predictor.test_topk_per_image = top
    if fpn_norm:
        config.model.backbone.norm = fpn_norm
    torch.manual_seed(0)
    model = instantiate(config.model).eval()
    if thaw:
        live_norms(model)
    augmentations = T.AugmentationList([T.ResizeShortestEdge([edges[0]] * 2, edges[1])])
    mapper = SimpleNamespace(image_format="BGR", augmentations=augmentations)

    def predict(image):
        resized = T.AugInput(image)
        augmentations(resized)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.image.transpose(2, 0, 1)))
        with torch.no_grad():
            return model([{"image": tensor, "height": image.shape[0], "width": image.shape[1]}])[0]["instances"]

    predictor, head = model.roi_heads.box_predictor, getattr(model.roi_heads, "mask_head", None)
    calibrate(
        model,
        lambda samples: [predict(image) for image in samples],
        objectness=model.proposal_generator.rpn_head.objectness_logits,
        deltas=model.proposal_generator.rpn_head.anchor_deltas,
        scores=predictor.cls_score,
        box_deltas=predictor.bbox_pred,
        mask_logits=head and head.predictor,
    )
    number = model.roi_heads.num_classes
    classes = SimpleNamespace(
        names=[f"kind {index}" for index in range(number)],
        category_ids=[10 * (index + 1) for index in range(number)],
        keypoint_names=[f"point {index}" for index in range(17)] if "keypoint" in name else [],
    )
    return model, build_recipe(model, mapper, classes), predict


def live_norms(module):
    """Replaces frozen norms by ones that can be calibrated."""
    for name, child in module.named_children():
        if isinstance(child, FrozenBatchNorm2d):
            setattr(module, name, nn.BatchNorm2d(child.num_features, eps=child.eps))
        else:
            live_norms(child)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A small model with masks and keypoints, and its export for OpenCV."""
    model, recipe, predict = build("mask_keypoint_rcnn_r18_fpn_scratch.py", num_classes=4)
    folder = export(model, recipe, "opencv", tmp_path_factory.mktemp("exported") / "model")
    return SimpleNamespace(folder=folder, model=model, recipe=recipe, predict=predict)
