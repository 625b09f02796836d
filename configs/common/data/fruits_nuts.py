"""Fruits and nuts: photographs of 800 x 600 pixels with objects of 70 to 170 pixels, halved for training and validation."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "fruits_nuts_train"
dataloader.test.dataset.names = "fruits_nuts_val"
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=[256, 288, 320, 352, 384], sample_style="choice", max_size=512),
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomFlip)(horizontal=False, vertical=True),
]
dataloader.test.mapper.augmentations[0].update(short_edge_length=384, max_size=512)
dataloader.train.update(total_batch_size=2, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
