"""Mask R-CNN, ResNet-101 FPN: 37 epochs of COCO (270 000 iterations of 16 images)."""

from .mask_rcnn_r50_fpn_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
