"""Masks and keypoints of people, ResNet-50 FPN: 12 epochs of COCO (90 000 iterations of 16 images)."""

from .common.data.coco_keypoint import dataloader
from .common.models.mask_keypoint_rcnn_fpn import model
from .common.optim.sgd import optimizer
from .common.schedule.coco import lr_multiplier_1x as lr_multiplier
from .common.train.default import train

dataloader.train.mapper.use_instance_mask = True
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
