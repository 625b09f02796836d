"""OCID: trained on the floor, tested on the table, which are other scenes."""

from .coco import dataloader

dataloader.train.dataset.names = "ocid_floor"
dataloader.test.dataset.names = "ocid_table"
# The images are 640 x 480 of a metre or two: larger shows nothing more.
dataloader.train.mapper.augmentations[0].update(short_edge_length=[400, 440, 480, 520, 560], max_size=800)
dataloader.test.mapper.augmentations[0].update(short_edge_length=480, max_size=800)
dataloader.train.mapper.instance_mask_format = "bitmask"  # the masks are RLEs
dataloader.train.update(total_batch_size=4, num_workers=2)
dataloader.test.num_workers = 2
