"""Cascade Mask R-CNN on ViT-H (ViTDet), pre-trained by MAE: 75 epochs of COCO. Needs Detectron2's main branch."""

from .common.models.cascade import to_cascade
from .mask_rcnn_vitdet_h_75ep import dataloader, lr_multiplier, model, optimizer, train

to_cascade(model)
