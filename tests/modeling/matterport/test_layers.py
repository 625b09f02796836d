"""Matterport's stem and pooler against their descriptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes
from hypothesis import strategies as st
from torch.nn import functional as F

from maskrcnn_ext.modeling.matterport.layers import MatterportPooler, SamePoolStem
from maskrcnn_ext.ops.crop_and_resize import crop_and_resize

SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_max_pooling_begins_at_the_first_pixel():
    torch.manual_seed(0)
    stem, image = SamePoolStem(norm="FrozenBN"), torch.randn(2, 3, 64, 96)
    convolved = stem.conv1(image).relu()
    expected = F.max_pool2d(F.pad(convolved, (0, 1, 0, 1), value=-math.inf), 3, 2)
    assert torch.equal(stem(image), expected)
    assert expected.shape[2:] == (16, 24)


corner, extent = st.floats(0, 500), st.floats(2.5, 500)


def test_boxes_are_pooled_from_matterports_level():
    torch.manual_seed(0)
    height, width = 256, 320
    features = [torch.randn(2, 3, int(height * s), int(width * s), dtype=torch.float64) for s in SCALES]
    rng = np.random.default_rng(0)
    starts, extents = rng.uniform(0, 60, (400, 2)), np.exp(rng.uniform(0, math.log(200), (400, 2)))
    extents[::4] = rng.uniform(79, 81, (100, 1))  # CropResizePooler goes to the next level at 79.2
    boxes = np.concatenate([starts, starts + extents], 1)
    boxes = np.concatenate([boxes, [[7, 7, 8, 8], [7, 7, 7.5, 90], [0, 0, width, height]]])
    pooler = MatterportPooler(3, SCALES, 0, "ROIAlignV2")
    pooled = pooler(features, [Boxes(torch.from_numpy(boxes[:100])), Boxes(torch.from_numpy(boxes[100:]))])

    unit = (boxes - [0, 0, 1, 1]) / [width - 1, height - 1, width - 1, height - 1]
    area = (unit[:, 2:] - unit[:, :2]).clip(0).prod(1)
    with np.errstate(divide="ignore"):
        offsets = np.rint(np.log2(np.sqrt(area) / (224 / math.sqrt(height * width))))
    levels = np.clip(4 + offsets, 2, 5).astype(int) - 2
    assert set(levels) == {0, 1, 2}
    images = torch.from_numpy((np.arange(len(boxes)) >= 100).astype(int))
    unit = torch.from_numpy(unit[:, [1, 0, 3, 2]])
    for number in set(levels):
        own = torch.from_numpy(levels == number)
        expected = crop_and_resize(features[number], unit[own], images[own], (3, 3))
        # Boxes are float32 in Detectron2.
        assert torch.allclose(pooled[own], expected, atol=1e-3)


@pytest.mark.parametrize(("extent", "level"), [(112 * math.sqrt(2), 2), (112 * math.sqrt(2) - 0.01, 1), (1, 0)])
def test_levels_are_rounded_half_to_even(extent, level):
    # log2(sqrt(area) / 224) of a square of 112 * sqrt(2) is -0.5; scales H / (H - 1) are undone by the box's size.
    size = 1024
    side = extent * (size - 1) / size + 1
    pooler = MatterportPooler(1, SCALES, 0, "ROIAlignV2")
    features = [torch.full((1, 1, int(size * s), int(size * s)), float(n)) for n, s in enumerate(SCALES)]
    assert pooler(features, [Boxes(torch.tensor([[0, 0, side, side]], dtype=torch.float64))]).item() == level


def test_no_boxes_and_gradients_pass_the_pooler():
    pooler = MatterportPooler(3, SCALES, 0, "ROIAlignV2")
    features = [torch.randn(1, 2, 64 >> n, 64 >> n, requires_grad=True) for n in range(4)]
    empty = pooler(features, [Boxes(torch.zeros(0, 4))])
    assert empty.shape == (0, 2, 3, 3)
    empty.sum().backward()
    pooler(features, [Boxes(torch.tensor([[3.0, 3, 40, 40]]))]).sum().backward()
    assert features[0].grad.abs().sum() > 0
