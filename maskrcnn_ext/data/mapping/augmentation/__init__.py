"""Augmentations beside Detectron2's own: Albumentations, copy-paste, mosaic, and seeds that hold for any number of workers."""

from maskrcnn_ext.data.mapping.augmentation.albumentations import AlbumentationsAugmentation
from maskrcnn_ext.data.mapping.augmentation.copy_paste import CopyPasteMapper
from maskrcnn_ext.data.mapping.augmentation.loader import build_train_loader
from maskrcnn_ext.data.mapping.augmentation.mosaic import MosaicMapper
from maskrcnn_ext.data.mapping.augmentation.seeding import SeededMapper

__all__ = ["AlbumentationsAugmentation", "CopyPasteMapper", "MosaicMapper", "SeededMapper", "build_train_loader"]
