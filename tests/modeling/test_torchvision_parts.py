"""Torchvision's anchors."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from maskrcnn_ext.modeling.torchvision_parts import TorchvisionAnchorGenerator


@pytest.mark.parametrize("height", [64, 96, 160, 224])
@pytest.mark.parametrize("width", [64, 352])
def test_anchors_equal_torchvision(height, width):
    sizes, strides = [[32], [64], [128], [256], [512]], [4, 8, 16, 32, 64]
    features = [torch.zeros(1, 1, -(-height // stride), -(-width // stride)) for stride in strides]
    ours = TorchvisionAnchorGenerator(sizes=sizes, aspect_ratios=[0.5, 1.0, 2.0], strides=strides, offset=0.0)
    theirs = AnchorGenerator(sizes, [[0.5, 1.0, 2.0]] * 5)
    expected = theirs(ImageList(torch.zeros(1, 3, height, width), [(height, width)]), features)[0]
    assert torch.equal(torch.cat([boxes.tensor for boxes in ours(features)]), expected)
