"""CropResizePooler against Matterport's PyramidROIAlign."""

import math

import numpy as np
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from maskrcnn_ext.modeling.poolers.crop_resize import CropResizePooler
from tests.helpers.poolers import BOXES, build, pyramid


def keras(features, boxes, image_size, bins):
    """PyramidROIAlign of Matterport's Mask R-CNN on one image, with loops; levels are rounded, boxes normalised by norm_boxes."""
    pooled = np.zeros((len(boxes), features[0].shape[0], bins, bins))
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        level = round(4 + math.log2(math.sqrt((x1 - x0) * (y1 - y0)) / 56))
        plane = features[min(5, max(2, level)) - 2]
        height, width = plane.shape[1:]
        ny1, nx1, ny2, nx2 = (value / (image_size - 1) for value in (y0, x0, y1 - 1, x1 - 1))
        for i in range(bins):
            y = ny1 * (height - 1) + i * (ny2 - ny1) * (height - 1) / (bins - 1)
            for j in range(bins):
                x = nx1 * (width - 1) + j * (nx2 - nx1) * (width - 1) / (bins - 1)
                if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                    top, left = int(y), int(x)
                    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                    upper = plane[:, top, left] * (left + 1 - x) + plane[:, top, right] * (x - left)
                    lower = plane[:, bottom, left] * (left + 1 - x) + plane[:, bottom, right] * (x - left)
                    pooled[index, :, i, j] = upper * (top + 1 - y) + lower * (y - top)
    return pooled


def test_crop_resize_equals_keras():
    features = pyramid(torch.float64, images=1)
    rng = np.random.default_rng(0)
    corners, sizes = rng.uniform(-20, 90, (60, 2)), 2 ** rng.uniform(2, 7.5, (60, 2))
    boxes = Boxes(torch.from_numpy(np.concatenate([corners, corners + sizes], axis=1)))
    pooled = build(CropResizePooler, {}, output_size=5)(features, [boxes])
    expected = keras([level[0].detach().numpy() for level in features], boxes.tensor.double().tolist(), 128, 5)
    # Boxes are float32, and so is their normalisation: 1e-6 of a pixel on random features.
    np.testing.assert_allclose(pooled.detach(), expected, atol=1e-5)


def test_crop_resize_rounds_to_a_level_where_detectron2_floors():
    sides = torch.tensor([35.0, 44.0, 70.0, 87.0])
    boxes = Boxes(torch.stack([sides * 0, sides * 0, sides, sides], dim=1))
    planes = [torch.full_like(level, index) for index, level in enumerate(pyramid(images=1))]
    levels = [
        build(pooler, {})(planes, [boxes])[:, 0, 1, 1].round().tolist() for pooler in (CropResizePooler, ROIPooler)
    ]
    # log2(side / 56) is -0.68, -0.35, 0.32 and 0.64.
    assert levels == [[1, 2, 2, 3], [1, 1, 2, 2]]


def test_crop_resize_takes_an_image_of_one_pixel():
    module = build(CropResizePooler, {}, [1.0])
    pooled = module([torch.full((1, 2, 1, 1), 3.0)], [Boxes(torch.tensor([[0.0, 0, 1, 1]]))])
    assert torch.equal(pooled, torch.full((1, 2, 3, 3), 3.0))


def test_crop_resize_has_no_gradient_for_boxes():
    corners = BOXES[:2].clone().requires_grad_()
    build(CropResizePooler, {})(pyramid(images=1), [Boxes(corners)]).sum().backward()
    assert corners.grad is None
