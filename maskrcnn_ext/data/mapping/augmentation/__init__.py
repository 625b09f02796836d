"""Augmentations beyond Detectron2's: Albumentations, copy-paste, mosaic, other resizing, and seeds independent of the workers."""

from maskrcnn_ext.data.mapping.augmentation.albumentations import AlbumentationsAugmentation
from maskrcnn_ext.data.mapping.augmentation.copy_paste import CopyPasteMapper
from maskrcnn_ext.data.mapping.augmentation.loader import SeededMapper, build_train_loader
from maskrcnn_ext.data.mapping.augmentation.mosaic import MosaicMapper

__all__ = ["AlbumentationsAugmentation", "CopyPasteMapper", "MosaicMapper", "SeededMapper", "build_train_loader"]
