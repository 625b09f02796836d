"""RoIAlign in plain PyTorch: double precision, and a backward pass that is the transpose of the forward pass."""

import pytest
import torch

from maskrcnn_ext.ops import roi_align_reference
from maskrcnn_ext.ops.roi_align import roi_align
from maskrcnn_ext.ops.roi_align_reference import SampleGrid
from tests.helpers.roi_pyramid import LEVELS, ROIS, SCALES, SIZES, pool_by_torchvision, pyramid


def test_double_precision_stays_double():
    features = pyramid(1, torch.float64, sizes=[(2, 6, 8), (2, 3, 4)])
    rois = ROIS.double() / 4

    def pool(*features):
        return roi_align(features, rois, LEVELS, SCALES, (2, 1), sampling_ratio=0, aligned=True)

    torch.testing.assert_close(pool(*features), pool_by_torchvision(features, rois, LEVELS, (2, 1), 0, True))
    assert torch.autograd.gradcheck(pool, features)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_the_backward_pass_is_the_transpose_of_the_forward_pass(sampling_ratio, aligned):
    features = [level.detach() for level in pyramid(3, torch.float64)]
    grid = SampleGrid(ROIS.double(), LEVELS, SCALES, (3, 2), sampling_ratio, aligned, channels_last=False)
    pooled = roi_align_reference.forward(features, grid)
    gradient = torch.randn(pooled.shape, dtype=torch.float64)
    gradients = roi_align_reference.backward(gradient, SIZES, grid)
    assert [level.shape for level in gradients] == [level.shape for level in features]
    products = [(level * gradient).sum() for level, gradient in zip(features, gradients, strict=True)]
    torch.testing.assert_close(sum(products), (pooled * gradient).sum())


def test_rois_without_a_level_or_an_image_take_nothing():
    features = [level.detach() for level in pyramid()]
    rois = torch.tensor([[0.0, 1, 1, 9, 9], [2.0, 1, 1, 9, 9]])
    grid = SampleGrid(rois, torch.tensor([2, 0]), SCALES, (2, 2), 0, True, channels_last=False)
    assert not roi_align_reference.forward(features, grid).any()
    assert not any(level.any() for level in roi_align_reference.backward(torch.ones(2, 5, 2, 2), SIZES, grid))
