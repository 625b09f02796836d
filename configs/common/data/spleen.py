"""CT slices of 512 x 512 in a soft-tissue window at about the original scale. Images are not flipped, because bodies are not mirrored."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "spleen_train"
dataloader.test.dataset.names = "spleen_val"
dataloader.train.mapper.update(
    augmentations=[
        L(T.ResizeShortestEdge)(short_edge_length=[448, 480, 512, 544, 576], sample_style="choice", max_size=800),
        L(T.RandomRotation)(angle=[-10, 10], expand=False),
        # Contrast agents and scanners vary.
        L(T.RandomBrightness)(intensity_min=0.9, intensity_max=1.1),
        L(T.RandomContrast)(intensity_min=0.9, intensity_max=1.1),
    ],
    instance_mask_format="bitmask",  # the masks are RLEs
    recompute_boxes=True,  # a rotated box is larger than its object
)
dataloader.test.mapper.augmentations = []
dataloader.train.update(total_batch_size=4, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
