"""Mask R-CNN, ResNet-50 DC5: 12 epochs of COCO (90 000 iterations of 16 images)."""

from .common.data.coco import dataloader
from .common.models.mask_rcnn_dc5 import model
from .common.optim.sgd import optimizer
from .common.schedule.coco import lr_multiplier_1x as lr_multiplier
from .common.train.default import train

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
