"""Measures of shapes against analytic values, and against their definitions by brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext.ops.shape_measures import PIXELS, measure_shape


def ellipse(a, b, degrees=0.0, side=160, matrix=PIXELS):
    """Pixels whose centre is in an ellipse around the middle of the image, in the units of `matrix`."""
    ys, xs = np.mgrid[:side, :side] + 0.5 - side / 2
    x, y = np.tensordot(matrix, np.stack([xs, ys]), axes=1)
    angle = math.radians(degrees)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (u / a) ** 2 + (v / b) ** 2 < 1


@pytest.mark.parametrize("radius", [8, 15, 40])
def test_a_disc(radius):
    found = measure_shape(ellipse(radius, radius))
    assert found.area == pytest.approx(math.pi * radius**2, rel=0.04)
    assert found.perimeter == pytest.approx(2 * math.pi * radius, rel=0.01)
    assert found.feret_max == pytest.approx(2 * radius, abs=1.5)
    assert found.feret_min == pytest.approx(2 * radius, abs=1.5)
    assert found.eccentricity < 0.1
    assert found.centroid == (80, 80)


@pytest.mark.parametrize("degrees", [-60, -10, 0, 25, 90])
def test_an_ellipse_in_any_direction(degrees):
    found = measure_shape(ellipse(60, 20, degrees))
    assert found.orientation == pytest.approx(degrees, abs=0.5)
    assert found.eccentricity == pytest.approx(math.sqrt(1 - (20 / 60) ** 2), abs=0.005)
    assert found.feret_max == pytest.approx(120, abs=1.5)
    assert found.feret_min == pytest.approx(40, abs=1.5)
    # Ramanujan's approximation of the perimeter
    h = ((60 - 20) / (60 + 20)) ** 2
    length = math.pi * 80 * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    assert found.perimeter == pytest.approx(length, rel=0.03)


def test_a_rectangle_has_its_sides():
    found = measure_shape(np.ones((20, 50), bool))
    assert found.area == 1000
    assert (found.feret_min, found.feret_max) == pytest.approx((20, math.hypot(20, 50)))
    assert found.orientation == 0
    assert found.eccentricity == pytest.approx(math.sqrt(1 - (20 / 50) ** 2))
    assert found.perimeter == pytest.approx(140, rel=0.06)
    assert found.perimeter < 140
    upright = measure_shape(np.ones((50, 20), bool))
    assert upright.orientation == 90


def test_one_pixel_has_every_measure():
    found = measure_shape(np.ones((1, 1), bool))
    assert (found.area, found.eccentricity, found.orientation) == (1, 0, 0)
    assert found.feret_min == pytest.approx(1)
    assert found.feret_max == pytest.approx(math.sqrt(2))
    assert found.centroid == (0.5, 0.5)


@pytest.mark.parametrize("matrix", [np.array([[0.5, 0], [0, -2.0]]), np.array([[3.0, 1], [0.5, -2]])])
def test_units_of_length_through_any_affine_map(matrix):
    found = measure_shape(ellipse(30, 12, 35, matrix=matrix, side=200), matrix)
    assert found.area == pytest.approx(math.pi * 30 * 12, rel=0.03)
    assert found.orientation == pytest.approx(35, abs=2)
    assert found.feret_max == pytest.approx(60, rel=0.06)
    assert found.eccentricity == pytest.approx(math.sqrt(1 - (12 / 30) ** 2), abs=0.02)
    h = (18 / 42) ** 2
    length = math.pi * 42 * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    assert found.perimeter == pytest.approx(length, rel=0.1)


def test_equal_pixels_of_another_size_scale_every_length():
    mask = ellipse(30, 12, 35)
    pixels, scaled = measure_shape(mask), measure_shape(mask, PIXELS * 0.3)
    assert scaled.area == pytest.approx(pixels.area * 0.09)
    for name in ("perimeter", "feret_max", "feret_min"):
        assert getattr(scaled, name) == pytest.approx(getattr(pixels, name) * 0.3)
    assert (scaled.orientation, scaled.eccentricity) == pytest.approx((pixels.orientation, pixels.eccentricity))


masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)).filter(np.any)


@settings(max_examples=60, deadline=None)
@given(mask=masks, turn=st.integers(0, 3))
def test_ferets_are_the_widths_of_the_pixels(mask, turn):
    found = measure_shape(mask)
    ys, xs = mask.nonzero()
    corners = np.concatenate([np.stack([xs + dx, ys + dy], 1) for dx in (0, 1) for dy in (0, 1)])
    angles = np.radians(np.arange(0, 180, 0.25))
    widths = np.ptp(corners @ np.stack([np.cos(angles), np.sin(angles)]), axis=0)
    assert found.feret_max == pytest.approx(widths.max(), rel=1e-4)
    assert found.feret_min <= widths.min() + 1e-9
    assert found.feret_min == pytest.approx(widths.min(), rel=0.01)
    turned = measure_shape(np.rot90(mask, turn))
    for name in ("area", "perimeter", "feret_max", "feret_min", "eccentricity"):
        assert getattr(turned, name) == pytest.approx(getattr(found, name))
