"""The balloon photographs of Matterport's Mask R-CNN, with COCO's augmentations."""

from .coco import dataloader

dataloader.train.dataset.names = "balloon_train"
dataloader.test.dataset.names = "balloon_val"
dataloader.train.update(total_batch_size=2, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
