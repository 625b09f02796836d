"""The common base: EfficientNet-Lite0 FPN from ImageNet weights, 300 iterations of two images, in bf16 on a CPU."""

from ...configs.mask_rcnn_efficientnet_lite0_fpn_finetune import dataloader, lr_multiplier, model, optimizer, train

train.update(max_iter=300, eval_period=0, log_period=50)
train.checkpointer.period = 300
train.amp.update(enabled=True, dtype="bf16")
train.channels_last = True
