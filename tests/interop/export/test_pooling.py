"""RoI pooling by RoIAlign against the poolers themselves."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_ext.interop.export.pooling import pool_rois
from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler


@pytest.mark.parametrize("output_size", [1, 7])
def test_crops_are_roi_aligns(output_size):
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 5, 64 >> level, 96 >> level, generator=generator) for level in range(3)]
    corners = torch.rand(40, 2, 2, generator=generator).sort(dim=1).values * torch.tensor([384.0, 256])
    boxes = corners.flatten(1)
    boxes[0] = torch.tensor([0.0, 0, 384, 256])  # both ends are the map's
    boxes[1, 2:] = boxes[1, :2] + 0.3  # upside down
    boxes[2] = torch.tensor([383.7, 255.9, 384, 256])  # beyond the last pixel's centre
    pooler = CropResizePooler(output_size, [1 / 4, 1 / 8, 1 / 16], 0, "ROIAlignV2", canonical_box_size=60)
    expected = pooler(maps, [Boxes(boxes[:25]), Boxes(boxes[25:])])
    images_of = (torch.arange(40) >= 25).float()[:, None]
    torch.testing.assert_close(
        pool_rois(pooler, maps, torch.cat([images_of, boxes], dim=1)), expected, rtol=0, atol=1e-3
    )
