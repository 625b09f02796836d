"""Mask R-CNN, ResNet-101 FPN from random weights with large-scale jittering: 100 epochs of COCO (Detectron2's new_baselines)."""

from .mask_rcnn_r50_fpn_lsj_100ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
