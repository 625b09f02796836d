"""KITTI MOTS, frame by frame, enlarged."""

from .coco import dataloader

dataloader.train.dataset.names = "kitti_mots_train"
dataloader.test.dataset.names = "kitti_mots_val"
# The frames are 1242 x 375: COCO's limit of 1333 pixels would not enlarge distant objects.
dataloader.train.mapper.augmentations[0].update(short_edge_length=[448, 480, 512, 544, 576, 608], max_size=2048)
dataloader.test.mapper.augmentations[0].update(short_edge_length=576, max_size=2048)
dataloader.train.mapper.instance_mask_format = "bitmask"  # the masks are RLEs
dataloader.train.total_batch_size = 8
