"""Orthomosaics in windows of 800 x 800, a little smaller and larger, because flights differ in height."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from maskrcnn_ext.data.mapping.mapper import SafeMapper

from .coco import dataloader

dataloader.train.dataset.names = "tree_crowns_train"
# Nobody outlines a whole forest: a window without crowns was not looked at, and what is found there is not false.
dataloader.test.dataset.update(names="tree_crowns_val", filter_empty=True)
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=[640, 720, 800, 880, 960], sample_style="choice", max_size=1333),
    # From above nothing is upright.
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomFlip)(horizontal=False, vertical=True),
    # The light of another hour.
    L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2),
    L(T.RandomContrast)(intensity_min=0.8, intensity_max=1.2),
]
dataloader.test.mapper.augmentations = []
# Windows of a raster, of which Detectron2's own mapper reads all.
dataloader.train.mapper._target_ = dataloader.test.mapper._target_ = SafeMapper
dataloader.train.update(total_batch_size=4, num_workers=2)
dataloader.test.num_workers = 2
# A window may hold more crowns than COCO's limit of 100 detections.
dataloader.evaluator.max_dets_per_image = 300
