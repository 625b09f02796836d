"""BDD100K instance segmentation at 600 to 720 pixels."""

from .coco import dataloader

dataloader.train.dataset.names = "bdd100k_train"
dataloader.test.dataset.names = "bdd100k_val"
# The images are 1280 x 720: training scales go up to the original size.
dataloader.train.mapper.augmentations[0].update(short_edge_length=[600, 624, 648, 672, 696, 720], max_size=1280)
dataloader.test.mapper.augmentations[0].update(short_edge_length=720, max_size=1280)
dataloader.train.mapper.instance_mask_format = "bitmask"  # the masks are RLEs
