"""Orthomosaics in windows of 800 x 800, scaled slightly, because flight heights differ."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "tree_crowns_train"
# Forests are annotated in parts: a window without crowns was probably not annotated, and detections there are not false.
dataloader.test.dataset.update(names="tree_crowns_val", filter_empty=True)
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=[640, 720, 800, 880, 960], sample_style="choice", max_size=1333),
    # Seen from above, objects have any orientation.
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomFlip)(horizontal=False, vertical=True),
    # Light changes with the time of day.
    L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2),
    L(T.RandomContrast)(intensity_min=0.8, intensity_max=1.2),
]
dataloader.test.mapper.augmentations = []
dataloader.train.update(total_batch_size=4, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
# A window may have more crowns than COCO's limit of 100 detections.
dataloader.evaluator.max_dets_per_image = 300
