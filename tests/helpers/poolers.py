"""Every pooler with small options, and boxes and features for them."""

import pytest
import torch
from detectron2.structures import Boxes

from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler
from maskrcnn_ext.modeling.poolers.deformable import DeformableROIPooler
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.modeling.poolers.generic import GenericROIPooler
from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler
from maskrcnn_ext.modeling.poolers.roi_warp import ROIWarpPooler

CHANNELS = 4
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
STOCK = {"sampling_ratio": 0, "pooler_type": "ROIAlignV2"}
DEFORMABLE = {"fc_dim": 8, "channels": CHANNELS}
ALL_LAYERS = {"fuse": "attention", "pre": "conv_per_level", "post": "non_local", "channels": CHANNELS}
GROIE = {"pre": "conv", "post": "attention", "num_heads": 2, "channels": CHANNELS}
POOLERS = [
    pytest.param(FastROIPooler, {}, id="fast"),
    pytest.param(GenericROIPooler, {}, id="generic"),
    pytest.param(GenericROIPooler, {"fuse": "max", "pre": "conv_per_level", "channels": CHANNELS}, id="generic-panet"),
    pytest.param(GenericROIPooler, GROIE, id="generic-groie"),
    pytest.param(GenericROIPooler, {"fuse": "concat", "post": "conv", "channels": CHANNELS}, id="generic-concat"),
    pytest.param(GenericROIPooler, ALL_LAYERS, id="generic-attention"),
    pytest.param(PreciseROIPooler, {}, id="precise"),
    pytest.param(ROIWarpPooler, {}, id="warp-average"),
    pytest.param(ROIWarpPooler, {"aggregate": "max"}, id="warp-max"),
    pytest.param(CropResizePooler, {}, id="crop-resize"),
    pytest.param(DeformableROIPooler, DEFORMABLE, id="deformable-v2"),
    pytest.param(DeformableROIPooler, {"mask_branch": True, **DEFORMABLE}, id="deformable-v2-own-mask"),
    pytest.param(DeformableROIPooler, {"modulated": False, **DEFORMABLE}, id="deformable-v1"),
]
# One box for every level, by the canonical size of 56 pixels, and degenerate boxes that detectors may predict.
BOXES = torch.tensor(
    [
        [3.0, 5, 18, 21],
        [3, 5, 43, 41],
        [3, 5, 73, 61],
        [3, 5, 123, 125],
        [9, 9, 9, 9],
        [9, 9, 9, 30],
        [200, -90, 260, -10],
    ]
)


def pyramid(dtype=torch.float32, images=2, channels=CHANNELS, size=128):
    torch.manual_seed(0)
    return [
        torch.randn(images, channels, int(size * s), int(size * s), dtype=dtype, requires_grad=True) for s in SCALES
    ]


def build(pooler, options, scales=SCALES, output_size=3, **stock):
    torch.manual_seed(1)
    return pooler(output_size, scales, **{**STOCK, **stock}, canonical_box_size=56, canonical_level=4, **options)


def boxes_of(*counts):
    return [Boxes(BOXES[:count]) for count in counts]
