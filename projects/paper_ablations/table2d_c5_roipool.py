"""Table 2d: RoIPool on features of stride 32, ResNet-50 C5."""

from .table2d_c5_roialign import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.box_pooler.pooler_type = "ROIPool"
model.roi_heads.mask_pooler.pooler_type = "ROIPool"
