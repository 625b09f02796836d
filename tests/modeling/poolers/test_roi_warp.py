"""ROIWarpPooler: rounding to the grid, as in RoIPool."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch.nn import functional as F

from maskrcnn_ext.modeling.poolers.roi_warp import ROIWarpPooler
from tests.helpers.poolers import CHANNELS, SCALES, build, pyramid


def test_roi_warp_rounds_away_half_a_pixel_unlike_roi_align():
    """Mask R-CNN's misalignment (section 3): half a pixel of the feature map is lost in rounding."""
    features = [pyramid()[0]]
    # Corners at 0.3 and 0.3 + 0.5 - 0.6 of a pixel around the whole pixels 2, 3, 17 and 19.
    corners = 4 * torch.tensor([[1.7, 2.7, 16.7, 18.7]])
    moved = corners + 4 * 0.5

    def change(pooler, options, pooler_type, features=features):
        module = build(pooler, options, SCALES[:1], pooler_type=pooler_type)
        boxes = [[Boxes(place), Boxes(place)] for place in (corners, moved)]
        return (module(features, boxes[1]) - module(features, boxes[0])).abs().max().item()

    assert change(ROIWarpPooler, {}, "ROIAlignV2") == 0
    assert change(ROIWarpPooler, {"aggregate": "max"}, "ROIAlignV2") == 0
    assert change(ROIPooler, {}, "ROIPool") == 0
    assert change(ROIPooler, {}, "ROIAlignV2") > 0.01
    # On a ramp it is half a pixel's worth.
    ramp = torch.arange(32.0).expand(2, CHANNELS, 32, 32)
    assert change(ROIPooler, {}, "ROIAlignV2", [ramp]) == pytest.approx(0.5, abs=1e-4)
    assert change(ROIWarpPooler, {}, "ROIAlignV2", [ramp]) == 0


def test_roi_warp_samples_within_the_pixels_of_roi_pool():
    """On a box of whole bins, the mean of samples at a pixel's middle is the mean of RoIPool's pixels; the maximum its maximum."""
    features, boxes = [pyramid()[0]], [Boxes(torch.tensor([[8.0, 8, 28, 28]]))] * 2  # pixels 2 to 7: 3 bins of 2
    stock = build(ROIPooler, {}, SCALES[:1], pooler_type="ROIPool")(features, boxes)
    warped = build(ROIWarpPooler, {"aggregate": "max"}, SCALES[:1], sampling_ratio=2)(features, boxes)
    torch.testing.assert_close(warped, stock)
    average = build(ROIWarpPooler, {}, SCALES[:1], sampling_ratio=2)(features, boxes)
    torch.testing.assert_close(average, F.avg_pool2d(features[0][:, :, 2:8, 2:8], 2))
