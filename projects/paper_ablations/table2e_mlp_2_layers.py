"""Table 2e: masks by fully connected layers, 1024-1024-80x28x28, ResNet-50 FPN. Its baseline with the FCN is mask_rcnn_r50_fpn_1x.py."""

from maskrcnn_ext import MLPMaskHead

from ...configs.mask_rcnn_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.mask_head._target_ = MLPMaskHead
