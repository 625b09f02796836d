"""OCID: trained on floor scenes, tested on table scenes."""

from .coco import dataloader

dataloader.train.dataset.names = "ocid_floor"
dataloader.test.dataset.names = "ocid_table"
# The images of 640 x 480 show one or two metres: enlarging adds no detail.
dataloader.train.mapper.augmentations[0].update(short_edge_length=[400, 440, 480, 520, 560], max_size=800)
dataloader.test.mapper.augmentations[0].update(short_edge_length=480, max_size=800)
dataloader.train.mapper.instance_mask_format = "bitmask"  # the masks are RLEs
dataloader.train.update(total_batch_size=4, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
