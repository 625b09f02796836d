"""Fruits and nuts."""

from ...configs.domains.fruits_nuts import dataloader, model
from .base import lr_multiplier, optimizer, train

dataloader.train.num_workers = dataloader.test.num_workers = 0
