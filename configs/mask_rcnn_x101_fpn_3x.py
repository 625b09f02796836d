"""Mask R-CNN, ResNeXt-101-32x8d FPN: 37 epochs of COCO (270 000 iterations of 16 images)."""

from .common.schedule.coco import lr_multiplier_3x as lr_multiplier
from .mask_rcnn_x101_fpn_1x import dataloader, model, optimizer, train

train.max_iter = 270000
