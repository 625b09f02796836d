"""Cascade Mask R-CNN, ResNet-50 FPN: 37 epochs of COCO (270 000 iterations of 16 images)."""

from .cascade_mask_rcnn_r50_fpn_1x import dataloader, model, optimizer, train
from .common.schedule.coco import lr_multiplier_3x as lr_multiplier

train.max_iter = 270000
