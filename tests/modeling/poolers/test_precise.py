"""PreciseROIPooler: gradients of boxes, and the limit of RoIAlign with many samples."""

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from maskrcnn_ext.modeling.poolers.precise import PreciseROIPooler
from tests.helpers.poolers import BOXES, build, pyramid


def test_precise_has_a_descent_gradient_for_boxes():
    module, features = build(PreciseROIPooler, {}), pyramid()
    corners = BOXES[:4].clone().requires_grad_()

    def loss(corners):
        return module(features, [Boxes(corners), Boxes(BOXES[:0])]).square().sum()

    before = loss(corners)
    before.backward()
    assert corners.grad.abs().amin() > 0
    assert loss(corners.detach() - 1e-3 * corners.grad) < before


def test_precise_is_the_limit_of_roi_align_with_many_samples():
    inside = [Boxes(BOXES[:3] + 8)] * 2  # at the map's border the two differ
    for pooler_type in ("ROIAlignV2", "ROIAlign"):
        sampled = build(ROIPooler, {}, sampling_ratio=64, pooler_type=pooler_type)(pyramid(), inside)
        exact = build(PreciseROIPooler, {}, pooler_type=pooler_type)(pyramid(), inside)
        torch.testing.assert_close(exact, sampled, atol=1e-3, rtol=0)
        assert (
            build(ROIPooler, {}, sampling_ratio=1, pooler_type=pooler_type)(pyramid(), inside) - exact
        ).abs().max() > 0.1
