"""Kudzu bugs."""

from ...configs.domains.kudzu_bugs import dataloader, model
from .base import lr_multiplier, optimizer, to_slim, train

to_slim(model, channels=64)
dataloader.train.num_workers = dataloader.test.num_workers = 0
# In half as many, the model learns little: 5.6 mask AP, and 14.9 in 900 (one seed).
train.max_iter = train.checkpointer.period = 600
