"""SpaceNet 2 chips of 650 x 650 at the original scale: crops of 512 x 512 for training, whole chips for validation."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco import dataloader

dataloader.train.dataset.names = "spacenet_buildings_train"
dataloader.test.dataset.names = "spacenet_buildings_val"
dataloader.train.mapper.update(
    augmentations=[
        L(T.RandomCrop)(crop_type="absolute", crop_size=[512, 512]),
        # Seen from above, objects have any orientation.
        L(T.RandomFlip)(horizontal=True),
        L(T.RandomFlip)(horizontal=False, vertical=True),
    ],
    recompute_boxes=True,  # from the masks after cropping
)
dataloader.test.mapper.augmentations = []
# A chip has more buildings than COCO's limit of 100 detections.
dataloader.evaluator.max_dets_per_image = 300
