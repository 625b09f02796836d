"""Mask R-CNN, ResNet-18 FPN from random weights, small enough for a CPU."""

from .common.models.from_scratch import to_r18_from_scratch
from .common.optim.adamw import optimizer
from .common.schedule.short import lr_multiplier
from .mask_rcnn_r50_fpn_1x import dataloader, model, train

to_r18_from_scratch(model)
dataloader.train.total_batch_size = 4
train.update(init_checkpoint="", max_iter=5000, eval_period=1000)
train.checkpointer.period = 1000
