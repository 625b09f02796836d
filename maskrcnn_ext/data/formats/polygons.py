"""Polygons [x, y, x, y, ...] in sub-pixel coordinates: their check, their box, and curves as polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import MAX_PIXELS, Box, check_outline_length, rle_box, segmentation_to_rle

# Corners of the polygon that replaces an ellipse: its area is within 0.2 % of the ellipse's.
_ELLIPSE_CORNERS = 64
# Lines that replace a Bezier curve: over a quarter circle with a radius of 100 pixels they are within an eighth of a pixel.
_CURVE_LINES = 16


def check_outline(polygon: Sequence[float], height: int, width: int, where: str) -> None:
    """Raises if a polygon extends beyond its image by more than the image's size, or if its outline is too long to draw.

    Both are errors, and drawing such a polygon would take much time and memory.

    Raises:
        InputError: a point is too far outside, or the outline is too long.
    """
    for values, size in ((polygon[0::2], width), (polygon[1::2], height)):
        far = next((value for value in values if not -size <= value <= 2 * size), None)
        if far is not None:
            raise InputError(f"{where}: {far:g} is far outside of the image of {width} x {height} (width, height)")
    try:
        check_outline_length(polygon, height, width)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def box_of_polygons(polygons: list[list[float]], height: int, width: int) -> Box:
    """Returns the box (x0, y0, x1, y1) of the part of polygons inside an image, in sub-pixel coordinates.

    Hand-drawn outlines have spikes without area, so each edge is moved to within a pixel of the rasterised mask's edge.

    Example:
        >>> box_of_polygons([[1.5, 1, 9, 1, 9, 20, 1.5, 20]], height=10, width=16)
        (1.5, 1.0, 9.0, 10.0)
    """
    xs = [min(max(x, 0.0), width) for polygon in polygons for x in polygon[0::2]]
    ys = [min(max(y, 0.0), height) for polygon in polygons for y in polygon[1::2]]
    corners = np.array([min(xs), min(ys), max(xs), max(ys)])
    raster = np.array(rle_box(segmentation_to_rle(polygons, height, width)) if height * width < MAX_PIXELS else ())
    if raster.any():
        corners = np.clip(corners, raster - 1, raster + 1)
    x0, y0, x1, y1 = (float(value) for value in corners)
    return x0, y0, x1, y1


def rotated_box(cx: float, cy: float, width: float, height: float, degrees: float) -> list[float]:
    """Returns the polygon of a box that is rotated around its centre, clockwise on the screen.

    Example:
        >>> [round(value) for value in rotated_box(50, 40, 40, 10, 90)]
        [55, 20, 55, 60, 45, 60, 45, 20]
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x * width / 2, y * height / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return [value for x, y in corners for value in (cx + x * cos - y * sin, cy + x * sin + y * cos)]


def is_rectangle(polygon: Sequence[float]) -> bool:
    """Returns whether a polygon is an upright rectangle, drawn from corner to corner.

    Example:
        >>> is_rectangle([1, 1, 5, 1, 5, 4, 1, 4]), is_rectangle([1, 1, 5, 2, 5, 4, 1, 4])
        (True, False)
    """
    corners = set(zip(polygon[0::2], polygon[1::2], strict=True))
    return (
        len(polygon) in (8, 10)
        and len(corners) == 4
        and len({x for x, _ in corners}) == len({y for _, y in corners}) == 2
    )


def ellipse(cx: float, cy: float, rx: float, ry: float, theta: float = 0.0) -> list[tuple[float, float]]:
    """Returns the corners of an ellipse; `theta` rotates its first axis, in radians clockwise on the screen."""
    points = []
    for corner in range(_ELLIPSE_CORNERS):
        angle = 2 * math.pi * corner / _ELLIPSE_CORNERS
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        points.append((cx + x * math.cos(theta) - y * math.sin(theta), cy + x * math.sin(theta) + y * math.cos(theta)))
    return points


def bezier(ends: np.ndarray) -> np.ndarray:
    """Returns points on a cubic Bezier curve with the control points `ends` (4, 2), without its start."""
    t = np.arange(1, _CURVE_LINES + 1)[:, None] / _CURVE_LINES
    curve: np.ndarray = sum(math.comb(3, k) * t**k * (1 - t) ** (3 - k) * ends[k] for k in range(4))
    return curve
