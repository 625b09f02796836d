"""Taps: their layout in groups, bilinear weights, and weighted sums."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from maskrcnn_ext.ops.taps import bilinear_taps, segments, sum_taps

HEIGHT, WIDTH = 5, 6


@given(st.lists(st.integers(0, 4), max_size=8))
def test_segments_lay_out_groups_side_by_side(counts):
    groups, positions, starts = segments(torch.tensor(counts, dtype=torch.long))
    assert groups.tolist() == [group for group, count in enumerate(counts) for _ in range(count)]
    assert positions.tolist() == [position for count in counts for position in range(count)]
    assert starts.tolist() == [sum(counts[:group]) for group in range(len(counts))]


def test_taps_are_summed_bin_by_bin():
    features = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).reshape(2, 3, 4, 5)
    rows = torch.tensor([7, 20 + 13, 0])  # (0, 1, 2), (1, 2, 3), (0, 0, 0) as image, y, x
    weights = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    summed = sum_taps(features, rows, weights, torch.tensor([0, 2, 2]))
    expected = [2 * features[0, :, 1, 2] + 0.5 * features[1, :, 2, 3], torch.zeros(3), 3 * features[0, :, 0, 0]]
    torch.testing.assert_close(summed, torch.stack([row.double() for row in expected]))


def test_half_precision_features_are_summed_in_the_precision_of_the_weights():
    features = torch.full((1, 1, 1, 300), 1.0, dtype=torch.float16)
    summed = sum_taps(features, torch.arange(300), torch.full((300,), 10.001), torch.tensor([0]))
    assert summed.dtype == torch.float16
    assert summed.item() == torch.tensor(3000.3, dtype=torch.float16).item()


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
def test_points_beyond_the_margin_are_zero(margin, y, expected):
    features = torch.tensor([2.0, 3.0]).reshape(1, 1, 2, 1)
    points = torch.tensor([y], dtype=torch.float32)
    assert sample(features, torch.tensor([0]), points, torch.zeros(1), margin).item() == expected


def test_points_that_are_not_numbers_point_into_the_map():
    points = torch.tensor([math.nan, math.inf, -math.inf])
    rows, _ = bilinear_taps(torch.zeros(3, dtype=torch.long), points, points, height=HEIGHT, width=WIDTH, margin=1)
    assert rows.min() >= 0
    assert rows.max() < HEIGHT * WIDTH
