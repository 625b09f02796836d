"""Fixtures that the tests of augmentations share."""

import pytest

from maskrcnn_ext import get_config


@pytest.fixture
def training(people):
    cfg = get_config("keypoint_rcnn_r18_fpn_scratch.py").copy()
    cfg.dataloader.train.dataset.names = people
    cfg.dataloader.train.mapper.use_instance_mask = True
    cfg.dataloader.train.mapper.instance_mask_format = "bitmask"
    cfg.dataloader.train.total_batch_size = 1
    cfg.dataloader.train.num_workers = 0
    return cfg
