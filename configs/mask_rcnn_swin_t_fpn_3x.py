"""Mask R-CNN, Swin-T FPN from ImageNet-1k weights (arXiv:2103.14030): 37 epochs of COCO. Needs timm."""

from .common.data.coco_crop import dataloader
from .common.models.mask_rcnn_fpn import model
from .common.models.timm_backbone import to_timm
from .common.optim.adamw_pretrained import optimizer
from .common.schedule.coco import lr_multiplier_3x as lr_multiplier
from .common.train.default import train

to_timm(model, "swin_tiny_patch4_window7_224.ms_in1k", drop_path_rate=0.2, out_norms=True)
train.max_iter = 270000
train.amp.enabled = True
