"""The generated shapes of the demo (maskrcnn_ext/data/tools/shapes.py), in the folder of `scripts/demo.sh`."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "coco:output/demo/data/train/annotations.json@output/demo/data/train/images"
dataloader.test.dataset.names = "coco:output/demo/data/val/annotations.json@output/demo/data/val/images"
dataloader.train.mapper.update(
    augmentations=[L(T.RandomFlip)(horizontal=True), L(T.RandomFlip)(horizontal=False, vertical=True)],
    instance_mask_format="bitmask",  # the masks are RLEs
)
dataloader.test.mapper.augmentations = []
dataloader.train.update(total_batch_size=8, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
