"""Kudzu bugs."""

from ...configs.domains.kudzu_bugs import dataloader, model
from .base import lr_multiplier, optimizer, train

dataloader.train.num_workers = dataloader.test.num_workers = 0
