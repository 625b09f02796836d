"""Mask R-CNN, ResNet-101 DC5: 12 epochs of COCO (90 000 iterations of 16 images)."""

from .mask_rcnn_r50_dc5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
