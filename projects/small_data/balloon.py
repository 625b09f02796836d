"""Balloons at the scale of fruits and nuts."""

from ...configs.domains.fruits_nuts import dataloader
from .base import lr_multiplier, model, optimizer, train

dataloader.train.dataset.names = "balloon_train"
dataloader.test.dataset.names = "balloon_val"
dataloader.train.num_workers = dataloader.test.num_workers = 0
# Balloons do not hang upside down.
dataloader.train.mapper.augmentations = dataloader.train.mapper.augmentations[:2]
model.roi_heads.num_classes = 1
