"""Mask R-CNN, EfficientNet-Lite0 and a slim FPN, fine-tuned from ImageNet weights on few images. For a CPU; needs the extra `lite`."""

from maskrcnn_ext import FastROIPooler

from .common.optim.adamw import optimizer
from .common.schedule.short import lr_multiplier
from .mask_rcnn_efficientnet_lite0_fpn_1x import dataloader, model, train

model.backbone.norm = model.roi_heads.mask_head.conv_norm = "GN"
# Few RoIs, because they take most of the time on a CPU.
model.roi_heads.batch_size_per_image = 64
model.proposal_generator.update(pre_nms_topk=[1000, 500], post_nms_topk=[300, 300])
model.roi_heads.box_pooler.update(_target_=FastROIPooler, sampling_ratio=2)
model.roi_heads.mask_pooler.update(_target_=FastROIPooler, sampling_ratio=2)

optimizer.lr = 5e-4
dataloader.train.update(total_batch_size=2, num_workers=min(2, dataloader.train.num_workers))
train.update(init_checkpoint="", max_iter=1000, eval_period=500)
train.checkpointer.period = 500
