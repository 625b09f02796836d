"""Table 2c: RoIPool, which rounds the RoI and its bins, ResNet-50 C4. Its baseline with RoIAlign is mask_rcnn_r50_c4_1x.py."""

from ...configs.mask_rcnn_r50_c4_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.pooler.pooler_type = "ROIPool"
