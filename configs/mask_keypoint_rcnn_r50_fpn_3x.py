"""Masks and keypoints of people, ResNet-50 FPN: 37 epochs of COCO (270 000 iterations of 16 images)."""

from .common.schedule.coco import lr_multiplier_3x as lr_multiplier
from .mask_keypoint_rcnn_r50_fpn_1x import dataloader, model, optimizer, train

train.max_iter = 270000
