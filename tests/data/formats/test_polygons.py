"""Polygons: their boxes beside the rasterised masks, outlines far outside of the image, ellipses and curves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.polygons import (
    bezier,
    box_of_polygons,
    check_outline,
    ellipse,
    is_rectangle,
    rotated_box,
)
from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle

HEIGHT, WIDTH = 30, 40


def area(points):
    x, y = np.transpose(points)
    return 0.5 * (x @ np.roll(y, -1) - y @ np.roll(x, -1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-20, 60), st.floats(-15, 45)), min_size=3, max_size=8))
def test_a_box_is_within_a_pixel_of_the_mask(points):
    polygon = [float(value) for point in points for value in point]
    x0, y0, x1, y1 = box = box_of_polygons([polygon], HEIGHT, WIDTH)
    assert 0 <= x0 <= x1 <= WIDTH
    assert 0 <= y0 <= y1 <= HEIGHT
    ys, xs = np.nonzero(decode_rle(segmentation_to_rle([polygon], HEIGHT, WIDTH)))
    if len(xs):
        np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1 + 1e-6)


def test_a_spike_without_area_does_not_enlarge_the_box():
    spiked = [5, 5, 15, 5, 15, 10, 35, 10, 15, 10, 15, 15, 5, 15]
    assert box_of_polygons([spiked], HEIGHT, WIDTH)[2] <= 17


def test_the_box_of_several_polygons_is_that_of_all():
    parts = [[1.5, 2, 8, 2, 8, 9.25, 1.5, 9.25], [20, 12, 31.5, 12, 31.5, 25, 20, 25]]
    assert box_of_polygons(parts, HEIGHT, WIDTH) == (1.5, 2, 31.5, 25)


@pytest.mark.parametrize("x", [-41, 81, math.inf, math.nan])
def test_an_outline_far_outside_is_an_error(x):
    check_outline([-40, -30, 80, 60, 0, 0], HEIGHT, WIDTH, "here")
    with pytest.raises(InputError, match=rf"^here: {x:g} is far outside of the image of 40 x 30 \(width, height\)"):
        check_outline([0, 0, x, 0, 5, 5], HEIGHT, WIDTH, "here")


def test_an_ellipse_has_its_area_and_its_axes_rotate_clockwise():
    points = np.array(ellipse(20, 15, 10, 4))
    assert area(points) == pytest.approx(math.pi * 10 * 4, rel=2e-3)
    np.testing.assert_allclose(((points - [20, 15]) ** 2 / [100, 16]).sum(axis=1), 1)
    assert ellipse(20, 15, 10, 4, theta=math.pi / 2)[0] == pytest.approx((20, 25))  # down on the screen


def test_a_curve_ends_at_its_last_point_and_a_quarter_circle_is_round():
    kappa = 4 / 3 * (math.sqrt(2) - 1)
    ends = np.array([[100, 0], [100, 100 * kappa], [100 * kappa, 100], [0, 100]])
    points = bezier(ends)
    assert points[-1].tolist() == [0, 100]
    assert np.abs(np.linalg.norm(points, axis=1) - 100).max() < 0.03
    straight = bezier(np.array([[0, 0], [1, 2], [2, 4], [3, 6]]))
    np.testing.assert_allclose(straight[:, 1], 2 * straight[:, 0])


def test_a_rectangle_is_upright_and_drawn_along_its_edges():
    assert is_rectangle([1, 1, 5, 1, 5, 4, 1, 4, 1, 1]), "closed"
    assert not is_rectangle([1, 1, 5, 1, 5, 4])
    assert not is_rectangle([1, 1, 5, 1, 5, 4, 2, 4])
    assert not is_rectangle(rotated_box(30, 20, 30, 10, 30))
