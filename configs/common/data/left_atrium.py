"""MR slices of 320 x 320 with the scanner's values, with the augmentations of the CT slices except for the size."""

from .spleen import dataloader

dataloader.train.dataset.names = "left_atrium_train"
dataloader.test.dataset.names = "left_atrium_val"
dataloader.train.mapper.augmentations[0].short_edge_length = [288, 304, 320, 336, 352]
