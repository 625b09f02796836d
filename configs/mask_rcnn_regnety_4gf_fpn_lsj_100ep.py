"""Mask R-CNN, RegNetY-4GF FPN from random weights with large-scale jittering: 100 epochs (Detectron2's new_baselines). Needs timm."""

from .common.models.timm_backbone import to_timm
from .mask_rcnn_r50_fpn_lsj_100ep import dataloader, lr_multiplier, model, optimizer, train

to_timm(model, "regnety_040", pretrained=False, norm="SyncBN")
train.cudnn_benchmark = True  # the images have one size
