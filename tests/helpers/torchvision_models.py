"""Small detectors of torchvision, for the tests of imported weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from tests.helpers.calibration import calibrate

SIZES = {"min_size": 128, "max_size": 192}


def small(num_classes=6, **options):
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
    )
    return detection.MaskRCNN(backbone, num_classes, **SIZES, **options)


def as_tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def calibrated(model):
    heads, rpn = model.roi_heads, model.rpn.head
    return calibrate(
        model,
        lambda shown: model([as_tensor(image) for image in shown]),
        objectness=rpn.cls_logits,
        deltas=rpn.bbox_pred,
        scores=heads.box_predictor.cls_score,
        box_deltas=heads.box_predictor.bbox_pred,
        mask_logits=heads.mask_predictor.mask_fcn_logits if heads.has_mask() else None,
    )


@pytest.fixture(scope="session")
def small_model():
    """A calibrated Mask R-CNN on ResNet-18."""
    return calibrated(small())


def saved(model, folder):
    torch.save(model.state_dict(), folder / "source.pth")
    return folder / "source.pth"
