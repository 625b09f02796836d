"""Cascade Mask R-CNN, Swin-T FPN from ImageNet-1k weights (arXiv:2103.14030): 37 epochs of COCO. Needs timm."""

from .common.models.cascade import to_giou_cascade
from .mask_rcnn_swin_t_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

to_giou_cascade(model)
