"""Section 4.2, class-agnostic masks: one mask for all classes, ResNet-50 C4."""

from ...configs.mask_rcnn_r50_c4_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.mask_head.num_classes = 1
