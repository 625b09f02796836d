"""Table 2d: RoIAlign on features of stride 32, ResNet-50 C5: where misalignment costs most.

DC5 without its dilation.
"""

from ...configs.mask_rcnn_r50_dc5_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.res5_dilation = 1
model.proposal_generator.anchor_generator.strides = [32]
model.roi_heads.box_pooler.scales = [1 / 32]
model.roi_heads.mask_pooler.scales = [1 / 32]
