"""Cityscapes, with the multi-scale training of Detectron2's Cityscapes/mask_rcnn_R_50_FPN.yaml, and COCO's metrics."""

from .coco import dataloader

dataloader.train.dataset.names = "cityscapes_train"
dataloader.test.dataset.names = "cityscapes_val"
# The images are 2048 x 1024: training scales go up to the original size, because distant objects are small.
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=[800, 832, 864, 896, 928, 960, 992, 1024], max_size=2048
)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=2048)
dataloader.train.mapper.instance_mask_format = "bitmask"  # the masks are RLEs
dataloader.train.total_batch_size = 8
