"""Nuclei of the Data Science Bowl 2018 at the original scale: crops of 256 x 256 for training, whole images for validation."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "nuclei_train"
dataloader.test.dataset.names = "nuclei_val"
dataloader.train.mapper.update(
    augmentations=[
        L(T.RandomCrop)(crop_type="absolute", crop_size=[256, 256]),
        L(T.RandomFlip)(horizontal=True),
        L(T.RandomFlip)(horizontal=False, vertical=True),
        L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2),
        L(T.RandomContrast)(intensity_min=0.8, intensity_max=1.2),
    ],
    instance_mask_format="bitmask",  # the masks are RLEs
    recompute_boxes=True,  # from the masks after cropping
)
dataloader.test.mapper.augmentations = []
dataloader.train.update(total_batch_size=4, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
# The images hold up to 375 nuclei: with COCO's limit of 100 detections the rest would count as missed.
dataloader.evaluator.max_dets_per_image = 400
