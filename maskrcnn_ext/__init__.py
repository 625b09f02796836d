"""Mask heads, RoI poolers and data sets for Mask R-CNN on Detectron2, each swapped in by one override.

Importing this package imports nothing else and registers nothing: a public name is resolved when it is first used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that defines it.
_EXPORTS = {
    "AlbumentationsAugmentation": "maskrcnn_ext.data.mapping.augmentation.albumentations",
    "BoundaryMaskHead": "maskrcnn_ext.modeling.mask_heads.boundary",
    "COCOEvaluator": "maskrcnn_ext.evaluation.coco",
    "CompactRCNN": "maskrcnn_ext.modeling.compact_rcnn",
    "CopyPasteMapper": "maskrcnn_ext.data.mapping.augmentation.copy_paste",
    "CropResizePooler": "maskrcnn_ext.modeling.poolers.crop_resize",
    "DCTMaskHead": "maskrcnn_ext.modeling.mask_heads.dct",
    "DeformableROIPooler": "maskrcnn_ext.modeling.poolers.deformable",
    "FCNMaskHead": "maskrcnn_ext.modeling.mask_heads.fcn",
    "FastROIPooler": "maskrcnn_ext.modeling.poolers.fast",
    "FastRPN": "maskrcnn_ext.modeling.rpn",
    "GenericROIPooler": "maskrcnn_ext.modeling.poolers.generic",
    "ImplicitPointRendMaskHead": "maskrcnn_ext.modeling.mask_heads.implicit_point_rend",
    "InflatedStem": "maskrcnn_ext.modeling.inflate",
    "InputError": "maskrcnn_ext.errors",
    "MLPMaskHead": "maskrcnn_ext.modeling.mask_heads.mlp",
    "MaskScoringHead": "maskrcnn_ext.modeling.mask_heads.mask_scoring",
    "MosaicMapper": "maskrcnn_ext.data.mapping.augmentation.mosaic",
    "PatchDCTMaskHead": "maskrcnn_ext.modeling.mask_heads.patch_dct",
    "PointRendMaskHead": "maskrcnn_ext.modeling.mask_heads.point_rend",
    "Predictor": "maskrcnn_ext.inference.predictor",
    "PreciseROIPooler": "maskrcnn_ext.modeling.poolers.precise",
    "ROIWarpPooler": "maskrcnn_ext.modeling.poolers.roi_warp",
    "RefineMaskHead": "maskrcnn_ext.modeling.mask_heads.refine_mask",
    "SafeMapper": "maskrcnn_ext.data.mapping.mapper",
    "SeededMapper": "maskrcnn_ext.data.mapping.augmentation.seeding",
    "SoftmaxMaskHead": "maskrcnn_ext.modeling.mask_heads.softmax",
    "TTARCNN": "maskrcnn_ext.modeling.tta",
    "TiledPredictor": "maskrcnn_ext.inference.tiling.predictor",
    "add_maskrcnn_ext_config": "maskrcnn_ext.modeling.yacs",
    "build_train_loader": "maskrcnn_ext.data.mapping.augmentation.loader",
    "class_balanced_sampler": "maskrcnn_ext.data.mapping.sampling",
    "get_config": "maskrcnn_ext.config.zoo",
    "get_dataset_dicts": "maskrcnn_ext.data.registry.catalog",
    "get_tiled_dataset_dicts": "maskrcnn_ext.data.mapping.tiles",
    "load_dataset": "maskrcnn_ext.data.registry.catalog",
    "optimize": "maskrcnn_ext.inference.optimization.optimize",
    "repeat_factor_sampler": "maskrcnn_ext.data.mapping.sampling",
}

if TYPE_CHECKING:
    from maskrcnn_ext.config.zoo import get_config as get_config
    from maskrcnn_ext.data.mapping.augmentation.albumentations import (
        AlbumentationsAugmentation as AlbumentationsAugmentation,
    )
    from maskrcnn_ext.data.mapping.augmentation.copy_paste import CopyPasteMapper as CopyPasteMapper
    from maskrcnn_ext.data.mapping.augmentation.loader import build_train_loader as build_train_loader
    from maskrcnn_ext.data.mapping.augmentation.mosaic import MosaicMapper as MosaicMapper
    from maskrcnn_ext.data.mapping.augmentation.seeding import SeededMapper as SeededMapper
    from maskrcnn_ext.data.mapping.mapper import SafeMapper as SafeMapper
    from maskrcnn_ext.data.mapping.sampling import class_balanced_sampler as class_balanced_sampler
    from maskrcnn_ext.data.mapping.sampling import repeat_factor_sampler as repeat_factor_sampler
    from maskrcnn_ext.data.mapping.tiles import get_tiled_dataset_dicts as get_tiled_dataset_dicts
    from maskrcnn_ext.data.registry.catalog import get_dataset_dicts as get_dataset_dicts
    from maskrcnn_ext.data.registry.catalog import load_dataset as load_dataset
    from maskrcnn_ext.errors import InputError as InputError
    from maskrcnn_ext.evaluation.coco import COCOEvaluator as COCOEvaluator
    from maskrcnn_ext.inference.optimization.optimize import optimize as optimize
    from maskrcnn_ext.inference.predictor import Predictor as Predictor
    from maskrcnn_ext.inference.tiling.predictor import TiledPredictor as TiledPredictor
    from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN as CompactRCNN
    from maskrcnn_ext.modeling.inflate import InflatedStem as InflatedStem
    from maskrcnn_ext.modeling.mask_heads.boundary import BoundaryMaskHead as BoundaryMaskHead
    from maskrcnn_ext.modeling.mask_heads.dct import DCTMaskHead as DCTMaskHead
    from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead as FCNMaskHead
    from maskrcnn_ext.modeling.mask_heads.implicit_point_rend import (
        ImplicitPointRendMaskHead as ImplicitPointRendMaskHead,
    )
    from maskrcnn_ext.modeling.mask_heads.mask_scoring import MaskScoringHead as MaskScoringHead
    from maskrcnn_ext.modeling.mask_heads.mlp import MLPMaskHead as MLPMaskHead
    from maskrcnn_ext.modeling.mask_heads.patch_dct import PatchDCTMaskHead as PatchDCTMaskHead
    from maskrcnn_ext.modeling.mask_heads.point_rend import PointRendMaskHead as PointRendMaskHead
    from maskrcnn_ext.modeling.mask_heads.refine_mask import RefineMaskHead as RefineMaskHead
    from maskrcnn_ext.modeling.mask_heads.softmax import SoftmaxMaskHead as SoftmaxMaskHead
    from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler as CropResizePooler
    from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler as DeformableROIPooler
    from maskrcnn_ext.modeling.poolers.fast import FastROIPooler as FastROIPooler
    from maskrcnn_ext.modeling.poolers.generic import GenericROIPooler as GenericROIPooler
    from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler as PreciseROIPooler
    from maskrcnn_ext.modeling.poolers.roi_warp import ROIWarpPooler as ROIWarpPooler
    from maskrcnn_ext.modeling.rpn import FastRPN as FastRPN
    from maskrcnn_ext.modeling.tta import TTARCNN as TTARCNN
    from maskrcnn_ext.modeling.yacs import add_maskrcnn_ext_config as add_maskrcnn_ext_config


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_EXPORTS))}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
