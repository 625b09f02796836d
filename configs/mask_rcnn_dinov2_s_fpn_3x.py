"""Mask R-CNN on a plain ViT-S with DINOv2's weights (arXiv:2304.07193) and a simple feature pyramid: 37 epochs of COCO. Needs timm."""

from maskrcnn_ext import SimpleFeaturePyramid

from .common.data.coco_crop import dataloader
from .common.models.mask_rcnn_fpn import model
from .common.models.timm_backbone import to_timm
from .common.optim.adamw_pretrained import optimizer
from .common.schedule.coco import lr_multiplier_3x as lr_multiplier
from .common.train.default import train

to_timm(model, "vit_small_patch14_dinov2.lvd142m", drop_path_rate=0.1)
model.backbone.update(_target_=SimpleFeaturePyramid, norm="LN")
optimizer.params.decay_rate = 0.7
train.max_iter = 270000
train.amp.enabled = True
