"""Mask R-CNN, ResNet-101 FPN from random weights with large-scale jittering: 400 epochs of COCO (Detectron2's new_baselines)."""

from .mask_rcnn_r101_fpn_lsj_100ep import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 737500  # the schedule is in fractions of the run
