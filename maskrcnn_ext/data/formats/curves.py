"""Curves as the corners of polygons, for formats that have nothing but polygons to give."""

from __future__ import annotations

import math

import numpy as np

# Corners of the polygon that stands for an ellipse: its area is within 0.2 % of the ellipse's.
_ELLIPSE_CORNERS = 64
# Lines that stand for a Bezier curve: over a quarter circle of 100 pixels radius they are within an eighth of a pixel.
_CURVE_LINES = 16


def ellipse(cx: float, cy: float, rx: float, ry: float, theta: float = 0.0) -> list[tuple[float, float]]:
    """Returns the corners of an ellipse; ``theta`` turns its first axis, in radians clockwise on the screen."""
    points = []
    for corner in range(_ELLIPSE_CORNERS):
        angle = 2 * math.pi * corner / _ELLIPSE_CORNERS
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        points.append((cx + x * math.cos(theta) - y * math.sin(theta), cy + x * math.sin(theta) + y * math.cos(theta)))
    return points


def bezier(ends: np.ndarray) -> np.ndarray:
    """Returns points on a cubic Bezier curve (4, 2) behind its start, its end included."""
    t = np.arange(1, _CURVE_LINES + 1)[:, None] / _CURVE_LINES
    curve: np.ndarray = sum(math.comb(3, k) * t**k * (1 - t) ** (3 - k) * ends[k] for k in range(4))
    return curve
