"""Cascade Mask R-CNN, ConvNeXt-T FPN from ImageNet-1k weights (arXiv:2201.03545): 37 epochs of COCO. Needs timm."""

from .common.models.cascade import to_giou_cascade
from .mask_rcnn_convnext_tiny_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

to_giou_cascade(model)
optimizer.lr = 2e-4
optimizer.params.decay_rate = 0.7
