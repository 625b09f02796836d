"""Fruits and nuts."""

from ...configs.domains.fruits_nuts import dataloader, model
from .base import lr_multiplier, optimizer, to_slim, train

to_slim(model, channels=64)
dataloader.train.num_workers = dataloader.test.num_workers = 0
