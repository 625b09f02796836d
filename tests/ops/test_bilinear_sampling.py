import math

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_ext.ops.bilinear_sampling import bilinear_taps
from maskrcnn_ext.ops.taps import sum_taps

HEIGHT, WIDTH = 5, 6


def sample(features, images, y, x, margin):
    rows, weights = bilinear_taps(images, y, x, height=features.shape[2], width=features.shape[3], margin=margin)
    return sum_taps(features, rows.flatten(), weights.flatten(), torch.arange(0, rows.numel(), 4))


def test_points_on_the_map_agree_with_grid_sample():
    torch.manual_seed(0)
    features = torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64)
    y = torch.cat([torch.rand(2, 40) * (HEIGHT - 1), torch.tensor([[0, HEIGHT - 1.0]]).expand(2, 2)], dim=1).double()
    x = torch.cat([torch.rand(2, 40) * (WIDTH - 1), torch.tensor([[0, WIDTH - 1.0]]).expand(2, 2)], dim=1).double()
    grid = torch.stack([2 * x / (WIDTH - 1) - 1, 2 * y / (HEIGHT - 1) - 1], dim=-1)
    expected = F.grid_sample(features, grid[:, None], align_corners=True)[:, :, 0].transpose(1, 2).flatten(0, 1)
    images = torch.arange(2).repeat_interleave(42)
    torch.testing.assert_close(sample(features, images, y.flatten(), x.flatten(), margin=0), expected)


@pytest.mark.parametrize(
    ("margin", "y", "expected"),
    [(0, -0.01, 0), (0, 0, 2), (0, 1, 3), (0, 1.01, 0), (1, -1, 2), (1, -1.01, 0), (1, 2, 3), (1, 2.01, 0)],
)
def test_beyond_the_margin_is_nothing(margin, y, expected):
    features = torch.tensor([2.0, 3.0]).reshape(1, 1, 2, 1)
    points = torch.tensor([y], dtype=torch.float32)
    assert sample(features, torch.tensor([0]), points, torch.zeros(1), margin).item() == expected


def test_points_that_are_not_numbers_point_into_the_map():
    points = torch.tensor([math.nan, math.inf, -math.inf])
    rows, _ = bilinear_taps(torch.zeros(3, dtype=torch.long), points, points, height=HEIGHT, width=WIDTH, margin=1)
    assert rows.min() >= 0
    assert rows.max() < HEIGHT * WIDTH
