"""iSAID patches of 800 x 800, scaled slightly."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "isaid_train"
dataloader.test.dataset.names = "isaid_val"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[640, 720, 800, 880, 960], max_size=1333)
# Seen from above, objects have any orientation.
dataloader.train.mapper.augmentations.append(L(T.RandomFlip)(horizontal=False, vertical=True))
# Car parks and harbours have hundreds of objects: with COCO's limit of 100 detections the rest would count as missed.
dataloader.evaluator.max_dets_per_image = 500
