"""Mask R-CNN, ConvNeXt-S FPN from ImageNet-1k weights (arXiv:2201.03545): 37 epochs of COCO. Needs timm."""

from .mask_rcnn_convnext_tiny_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.update(name="convnext_small.fb_in1k", drop_path_rate=0.6)
