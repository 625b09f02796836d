"""COCO 2017 with scales of 480 to 800 and, for half of the images, a crop before it (DETR, arXiv:2005.12872, section 4)."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

_crop = [
    L(T.ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice", max_size=1333),
    L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
]
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomApply)(tfm_or_aug=L(T.AugmentationList)(augs=_crop), prob=0.5),
    L(T.ResizeShortestEdge)(short_edge_length=[*range(480, 801, 32)], sample_style="choice", max_size=1333),
]
