"""Kangaroos on photographs: only boxes, with COCO's augmentations."""

from .coco import dataloader

dataloader.train.dataset.names = "kangaroo_train"
dataloader.test.dataset.names = "kangaroo_val"
dataloader.train.mapper.use_instance_mask = False
dataloader.train.update(total_batch_size=2, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
