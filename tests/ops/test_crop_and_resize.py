"""crop_and_resize against a loop over samples, and its gradients."""

import math

import numpy as np
import pytest
import torch

from maskrcnn_ext.ops.crop_and_resize import crop_and_resize


def reference(features, boxes, images, size_y, size_x):
    """TensorFlow's documentation of crop_and_resize, one sample at a time."""
    height, width = features.shape[2:]
    crops = np.zeros((len(boxes), features.shape[1], size_y, size_x))
    for index, (y1, x1, y2, x2) in enumerate(boxes):
        for i in range(size_y):
            y = (
                y1 * (height - 1) + i * (y2 - y1) * (height - 1) / (size_y - 1)
                if size_y > 1
                else 0.5 * (y1 + y2) * (height - 1)
            )
            for j in range(size_x):
                x = (
                    x1 * (width - 1) + j * (x2 - x1) * (width - 1) / (size_x - 1)
                    if size_x > 1
                    else 0.5 * (x1 + x2) * (width - 1)
                )
                if not (0 <= y <= height - 1 and 0 <= x <= width - 1):
                    continue
                top, left, bottom, right = math.floor(y), math.floor(x), math.ceil(y), math.ceil(x)
                plane = features[images[index]]
                upper = plane[:, top, left] + (plane[:, top, right] - plane[:, top, left]) * (x - left)
                lower = plane[:, bottom, left] + (plane[:, bottom, right] - plane[:, bottom, left]) * (x - left)
                crops[index, :, i, j] = upper + (lower - upper) * (y - top)
    return crops


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 1), (1, 4)])
def test_it_equals_the_documented_formula_of_tensorflow(size):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 6, 9))
    boxes = np.concatenate([rng.uniform(-0.3, 1.3, (30, 4)), [[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]]])
    images = rng.integers(0, 2, 32)
    expected = reference(features, boxes, images, *size)
    crops = crop_and_resize(*map(torch.from_numpy, (features, boxes, images)), size)
    np.testing.assert_allclose(crops, expected, atol=1e-10)
    crops = crop_and_resize(
        torch.from_numpy(features).float(), torch.from_numpy(boxes).float(), torch.from_numpy(images), size
    )
    # Rounding may push a sample over the edge, where the reference jumps to 0: none of these lies so close.
    np.testing.assert_allclose(crops, expected, atol=1e-5)


def test_a_box_that_ends_with_the_map_loses_no_sample_to_rounding():
    start = torch.linspace(0, 0.99, 500)
    boxes = torch.stack([start, start, torch.ones(500), torch.ones(500)], dim=1)
    for size in (7, 14, 28):
        crops = crop_and_resize(torch.ones(1, 1, 200, 304), boxes, torch.zeros(500, dtype=torch.long), (size, size))
        torch.testing.assert_close(crops, torch.ones_like(crops))


def test_gradients_reach_the_features_only():
    torch.manual_seed(0)
    features = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.1, 0.2, 0.8, 0.7], [0.5, -0.4, 0.2, 1.2]], dtype=torch.float64)
    images = torch.zeros(2, dtype=torch.long)
    assert torch.autograd.gradcheck(lambda features: crop_and_resize(features, boxes, images, (3, 2)), features)
    boxes.requires_grad_()
    crop_and_resize(features, boxes, images, (3, 2)).sum().backward()
    assert boxes.grad is None
    assert features.grad.any()
