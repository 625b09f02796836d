"""RPN, pooler, box head and mask head in their optimized form: equal to Detectron2's."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes, Instances
from torch import nn

from maskrcnn_ext import get_config
from maskrcnn_ext.inference.optimization.heads import (
    FusedRPNHead,
    flatten_channels_last,
    fuse_relus,
    is_fusible_rpn_head,
    make_fast_rpn,
    make_optimized_pooler,
    select_class_head,
)
from maskrcnn_ext.inference.optimization.layers import FusedLayers
from maskrcnn_ext.inference.optimization.optimize import _fuse_layers
from maskrcnn_ext.modeling.rpn import FastRPN
from maskrcnn_ext.ops.workspace import Workspace


def test_only_the_stock_rpn_becomes_a_fast_one():
    rpn = instantiate(get_config("mask_rcnn_r18_fpn_scratch.py").model.proposal_generator)
    fast = make_fast_rpn(rpn)
    assert type(fast) is FastRPN
    assert fast.rpn_head is rpn.rpn_head
    assert (fast.pre_nms_topk, fast.post_nms_topk) == (rpn.pre_nms_topk, rpn.post_nms_topk)
    assert make_fast_rpn(fast) is fast
    assert make_fast_rpn(nn.Identity()) is None


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
@torch.no_grad()
def test_the_last_layers_of_the_rpn_are_one_product(dtype, error):
    torch.manual_seed(0)
    head = StandardRPNHead(in_channels=32, num_anchors=3).eval()
    maps = [torch.randn(2, 32, 6, 5), torch.randn(2, 32, 1, 1)]
    expected = head(maps)
    assert not is_fusible_rpn_head(head)  # its convolutions are not fused yet
    _fuse_layers(head, FusedLayers(dtype, Workspace()))
    if not is_fusible_rpn_head(head):
        pytest.skip("the compiled kernels are missing")
    fused = FusedRPNHead(head)
    for found, of_kind in zip(fused([x.to(dtype) for x in maps]), expected, strict=True):
        assert [value.dtype for value in found] == [torch.float32] * 2
        for value, reference in zip(found, of_kind, strict=True):
            torch.testing.assert_close(value, reference, atol=error, rtol=error)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_the_pooler_equals_the_stock_one(memory_format):
    torch.manual_seed(0)
    pooler = ROIPooler(7, [1 / 4, 1 / 8], 0, "ROIAlignV2")
    maps = [torch.randn(2, 8, side, side).contiguous(memory_format=memory_format) for side in (32, 16)]
    boxes = [Boxes(torch.tensor([[3.0, 5.0, 60.0, 90.0], [0.0, 0.0, 127.0, 127.0]])), Boxes(torch.zeros(0, 4))]
    optimized = make_optimized_pooler(pooler, Workspace())
    torch.testing.assert_close(optimized(maps, boxes), pooler(maps, boxes), atol=1e-5, rtol=1e-5)
    half = optimized([x.bfloat16() for x in maps], boxes)
    torch.testing.assert_close(half, pooler(maps, boxes).bfloat16(), atol=0.03, rtol=0.02)
    assert make_optimized_pooler(ROIPooler(7, [1 / 4], 0, "ROIPool"), Workspace()) is None


@torch.no_grad()
def test_flattening_channels_last_changes_no_result():
    torch.manual_seed(0)
    head = FastRCNNConvFCHead(ShapeSpec(channels=8, height=5, width=4), conv_dims=[8], fc_dims=[16, 12]).eval()
    x = torch.randn(3, 8, 5, 4)
    expected = head(x)
    flatten_channels_last(head, None)
    assert torch.equal(head(x), expected)
    flatten_channels_last(head, (5, 4))
    torch.testing.assert_close(head(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_classes", [1, 3])
@torch.no_grad()
def test_the_mask_head_computes_the_masks_of_the_predicted_classes(num_classes):
    torch.manual_seed(0)
    head = MaskRCNNConvUpsampleHead(ShapeSpec(channels=32), num_classes=num_classes, conv_dims=[32, 32]).eval()
    x = torch.randn(4, 32, 14, 14)
    images = [Instances((50, 50), pred_classes=torch.arange(4) % num_classes)]
    expected = head(x, [Instances((50, 50), pred_classes=images[0].pred_classes)])[0].pred_masks
    assert select_class_head(head) is None  # its convolutions are not fused yet
    _fuse_layers(head, FusedLayers(torch.float32, Workspace()))
    selected = select_class_head(head)
    (found,) = selected(x, images)
    assert found.pred_masks.shape == (4, 1, 28, 28)
    torch.testing.assert_close(found.pred_masks, expected, atol=1e-4, rtol=1e-4)
    empty = selected(x[:0], [Instances((50, 50), pred_classes=torch.zeros(0, dtype=torch.int64))])
    assert empty[0].pred_masks.shape == (0, 1, 28, 28)


@torch.no_grad()
def test_relus_are_fused_into_the_layer_before_them():
    torch.manual_seed(0)
    sequence = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.ReLU(), nn.Conv2d(32, 4, 1)).eval()
    x = torch.randn(1, 32, 6, 6)
    expected = sequence(x)
    _fuse_layers(sequence, FusedLayers(torch.float32, Workspace()))
    fuse_relus(sequence)
    assert not any(isinstance(module, nn.ReLU) for module in sequence)
    torch.testing.assert_close(sequence(x), expected, atol=1e-4, rtol=1e-4)
