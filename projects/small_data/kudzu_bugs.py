"""Kudzu bugs."""

from ...configs.domains.kudzu_bugs import dataloader, model
from .base import lr_multiplier, optimizer, to_slim, train

to_slim(model, channels=64)
dataloader.train.num_workers = dataloader.test.num_workers = 0
