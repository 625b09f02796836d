"""Dates, figs and hazelnuts (`fruits_nuts_train`, `fruits_nuts_val`): EfficientNet-Lite0 FPN from ImageNet weights."""

from ..common.data.fruits_nuts import dataloader
from ..mask_rcnn_efficientnet_lite0_fpn_finetune import lr_multiplier, model, optimizer, train

model.roi_heads.num_classes = 3
train.seed = 1
