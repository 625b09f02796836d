"""Mask R-CNN, EfficientNet-Lite0 FPN, fine-tuned from ImageNet weights on few images. For a CPU; needs the extra `lite`."""

from .common.models.efficientnet_lite import to_efficientnet_lite
from .common.optim.adamw import optimizer
from .common.schedule.short import lr_multiplier
from .mask_rcnn_r50_fpn_1x import dataloader, model, train

to_efficientnet_lite(model)
optimizer.lr = 5e-4
dataloader.train.mapper.image_format = "RGB"
dataloader.train.update(total_batch_size=2, num_workers=2)
train.update(init_checkpoint="", max_iter=1000, eval_period=500)
train.checkpointer.update(period=500, max_to_keep=2)
