"""The public names and the modules that define them: read by type checkers, and by ``__init__.py`` to import a name on first use.

To add a public name, add an import here, an ``Example:`` to its docstring, and a line to CHANGELOG.md.
"""

from maskrcnn_ext.config.zoo import get_config as get_config
from maskrcnn_ext.data.mapping.augmentation.albumentations import (
    AlbumentationsAugmentation as AlbumentationsAugmentation,
)
from maskrcnn_ext.data.mapping.augmentation.copy_paste import CopyPasteMapper as CopyPasteMapper
from maskrcnn_ext.data.mapping.augmentation.loader import SeededMapper as SeededMapper
from maskrcnn_ext.data.mapping.augmentation.loader import build_train_loader as build_train_loader
from maskrcnn_ext.data.mapping.augmentation.mosaic import MosaicMapper as MosaicMapper
from maskrcnn_ext.data.mapping.mapper import SafeMapper as SafeMapper
from maskrcnn_ext.data.mapping.sampling import class_balanced_sampler as class_balanced_sampler
from maskrcnn_ext.data.mapping.sampling import repeat_factor_sampler as repeat_factor_sampler
from maskrcnn_ext.data.mapping.tiles import get_tiled_dataset_dicts as get_tiled_dataset_dicts
from maskrcnn_ext.data.registry.catalog import get_dataset_dicts as get_dataset_dicts
from maskrcnn_ext.data.registry.catalog import load_dataset as load_dataset
from maskrcnn_ext.errors import InputError as InputError
from maskrcnn_ext.evaluation.coco import COCOEvaluator as COCOEvaluator
from maskrcnn_ext.inference.ensemble import EnsemblePredictor as EnsemblePredictor
from maskrcnn_ext.inference.optimization.optimize import optimize as optimize
from maskrcnn_ext.inference.predictor import Predictor as Predictor
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor as TiledPredictor
from maskrcnn_ext.modeling.backbones.feature_pyramid import SimpleFeaturePyramid as SimpleFeaturePyramid
from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone as TimmBackbone
from maskrcnn_ext.modeling.box_predictor import BoxPredictor as BoxPredictor
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN as CompactRCNN
from maskrcnn_ext.modeling.inflate import InflatedStem as InflatedStem
from maskrcnn_ext.modeling.layer_decay import layer_decay_params as layer_decay_params
from maskrcnn_ext.modeling.mask_heads.boundary import BoundaryMaskHead as BoundaryMaskHead
from maskrcnn_ext.modeling.mask_heads.dct import DCTMaskHead as DCTMaskHead
from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead as FCNMaskHead
from maskrcnn_ext.modeling.mask_heads.full_refine_mask import FullRefineMaskHead as FullRefineMaskHead
from maskrcnn_ext.modeling.mask_heads.full_refine_mask import SimpleRefineMaskHead as SimpleRefineMaskHead
from maskrcnn_ext.modeling.mask_heads.implicit_point_rend import ImplicitPointRendMaskHead as ImplicitPointRendMaskHead
from maskrcnn_ext.modeling.mask_heads.mask_scoring import MaskScoringHead as MaskScoringHead
from maskrcnn_ext.modeling.mask_heads.mlp import MLPMaskHead as MLPMaskHead
from maskrcnn_ext.modeling.mask_heads.patch_dct import PatchDCTMaskHead as PatchDCTMaskHead
from maskrcnn_ext.modeling.mask_heads.point_rend import PointRendMaskHead as PointRendMaskHead
from maskrcnn_ext.modeling.mask_heads.refine_mask import RefineMaskHead as RefineMaskHead
from maskrcnn_ext.modeling.mask_heads.softmax import SoftmaxMaskHead as SoftmaxMaskHead
from maskrcnn_ext.modeling.partial_labels import PartialCascadeROIHeads as PartialCascadeROIHeads
from maskrcnn_ext.modeling.partial_labels import PartialRes5ROIHeads as PartialRes5ROIHeads
from maskrcnn_ext.modeling.partial_labels import PartialROIHeads as PartialROIHeads
from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler as CropResizePooler
from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler as DeformableROIPooler
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler as FastROIPooler
from maskrcnn_ext.modeling.poolers.generic import GenericROIPooler as GenericROIPooler
from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler as PreciseROIPooler
from maskrcnn_ext.modeling.poolers.roi_warp import ROIWarpPooler as ROIWarpPooler
from maskrcnn_ext.modeling.rpn import FastRPN as FastRPN
from maskrcnn_ext.modeling.semantic_point_rend import PointRendSemSegHead as PointRendSemSegHead
from maskrcnn_ext.modeling.tta import TTARCNN as TTARCNN
from maskrcnn_ext.modeling.yacs import add_maskrcnn_ext_config as add_maskrcnn_ext_config

__version__: str
