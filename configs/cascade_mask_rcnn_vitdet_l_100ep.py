"""Cascade Mask R-CNN on ViT-L (ViTDet), pre-trained by MAE: 100 epochs of COCO. Needs Detectron2's main branch."""

from .common.models.cascade import to_cascade
from .mask_rcnn_vitdet_l_100ep import dataloader, lr_multiplier, model, optimizer, train

to_cascade(model)
