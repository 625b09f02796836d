"""Table 2c: RoIWarp, which rounds the RoI and samples it bilinearly, averaged, ResNet-50 C4."""

from maskrcnn_ext import ROIWarpPooler

from ...configs.mask_rcnn_r50_c4_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.pooler._target_ = ROIWarpPooler
