"""COCO 2017 with large-scale jittering (arXiv:2012.07177): scaled by 0.1 to 2, cropped or padded to 1024 x 1024."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.mapper.augmentations = [
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=1024, target_width=1024),
    L(T.FixedSizeCrop)(crop_size=[1024, 1024]),
    L(T.RandomFlip)(horizontal=True),
]
# A crop cuts objects: boxes are recomputed from the rest of the mask.
dataloader.train.mapper.recompute_boxes = True
dataloader.train.total_batch_size = 64
