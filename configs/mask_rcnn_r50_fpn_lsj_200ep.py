"""Mask R-CNN, ResNet-50 FPN from random weights with large-scale jittering: 200 epochs of COCO (Detectron2's new_baselines)."""

from .mask_rcnn_r50_fpn_lsj_100ep import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 368750  # the schedule is in fractions of the run
