"""The common base: EfficientNet-Lite0 from ImageNet weights, FPN and heads of 64 channels, 300 iterations of two images, for a CPU."""

from ...configs.common.models.timm_backbone import to_slim
from ...configs.mask_rcnn_efficientnet_lite0_fpn_finetune import dataloader, lr_multiplier, model, optimizer, train

to_slim(model, channels=64)

train.update(max_iter=300, eval_period=0, log_period=50, channels_last=True)
train.checkpointer.period = 300
