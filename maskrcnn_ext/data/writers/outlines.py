"""Converts masks to polygons and Shapely geometries that enclose exactly their pixels, for formats that have only outlines."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import shapely

from maskrcnn_ext.data.formats.geo_transform import polygons_of as polygons_in
from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle


def decode(segmentation: list[list[float]] | dict[str, Any], height: int, width: int) -> np.ndarray:
    """Returns the mask (H, W), bool, of polygons or an RLE."""
    return decode_rle(segmentation_to_rle(segmentation, height, width)).astype(bool)


def polygons_of(annotation: Annotation, height: int, width: int) -> list[list[float]]:
    """Returns an annotation's polygons [x, y, x, y, ...]. All points are inside the image, and no polygons overlap.

    A single polygon inside the image is returned unchanged. Any other segmentation becomes the outlines of its mask, with the same
    pixels. The result is empty if there is no segmentation, or all of it is outside the image.
    """
    if annotation.segmentation is None:
        return []
    polygon = single_polygon(annotation, height, width)
    return [polygon] if polygon else outlines_of_mask(decode(annotation.segmentation, height, width))


def single_polygon(annotation: Annotation, height: int, width: int) -> list[float]:
    """Returns the polygon of an object that is one polygon inside its image; empty for any other."""
    segmentation = annotation.segmentation
    if not isinstance(segmentation, list) or len(segmentation) != 1:
        return []
    points = np.asarray(segmentation[0]).reshape(-1, 2)
    return segmentation[0] if (points >= 0).all() and (points <= (width, height)).all() else []


def outlines_of_mask(mask: np.ndarray) -> list[list[float]]:
    """Returns the outline of each connected part (8 neighbours) of a boolean mask (H, W), along the edges of its pixels.

    A part with holes is also one polygon: bridges without area connect its outline with each hole.
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(xs):
        return []
    crop = mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].astype(np.uint8)
    # OpenCV's contours pass through pixel centres. In a mask of twice the size, the centres 2x and 2x + 1 are the left and the right
    # edge of pixel x.
    contours, hierarchy = cv2.findContours(
        np.kron(crop, np.ones((2, 2), np.uint8)), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    rings = [_corners((contour[:, 0] + 1) // 2 + (xs[0], ys[0])) for contour in contours]
    parents = hierarchy[0, :, 3]
    polygons = []
    for part in np.flatnonzero(parents < 0):
        joined = join_rings([rings[part], *(rings[hole] for hole in np.flatnonzero(parents == part))])
        polygons.append([float(value) for value in joined.ravel()])
    return polygons


def geometry_of_mask(mask: np.ndarray, corner: tuple[int, int] = (0, 0)) -> shapely.Geometry:
    """Returns the valid Polygon or MultiPolygon, with holes, along the edges of a mask's pixels; an empty Polygon for an empty mask.

    Args:
        mask: (h, w), bool or 0 and 1.
        corner: x and y of the mask's upper left pixel in its image.

    Example:
        >>> geometry_of_mask(np.ones((1, 3), bool), (2, 0)).bounds
        (2.0, 0.0, 5.0, 1.0)
    """
    if not mask.any():
        return shapely.Polygon()
    # See outlines_of_mask for the double size.
    contours, hierarchy = cv2.findContours(
        mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rings = [(contour[:, 0] + 1) // 2 + corner for contour in contours]
    parents = hierarchy[0, :, 3]
    parts = [
        shapely.Polygon(rings[part], [rings[hole] for hole in np.flatnonzero(parents == part)])
        for part in np.flatnonzero(parents < 0)
    ]
    # A ring meets itself where pixels touch at a corner only; make_valid splits it there.
    whole = shapely.MultiPolygon(polygons_in(shapely.make_valid(np.array(parts)))).simplify(0)
    return orient(whole)


def orient(outline: shapely.Geometry) -> shapely.Geometry:
    """Returns the outline with outer rings anticlockwise and holes clockwise, as RFC 7946 requires; one part as a Polygon."""
    parts = [shapely.geometry.polygon.orient(part) for part in shapely.get_parts(outline)]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _corners(ring: np.ndarray) -> np.ndarray:
    """Returns the points of a ring (N, 2) at which it turns."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def join_rings(rings: list[np.ndarray]) -> np.ndarray:
    """Joins closed rings (N, 2) into one, by bridges between points that are close, without changing the area.

    The area is that inside an odd number of rings, as rasterisers count it.
    """
    joined = rings[0]
    for ring in rings[1:]:
        squared = ((joined[:, None].astype(np.float64) - ring[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(squared.argmin(), squared.shape)
        joined = np.concatenate([joined[: here + 1], ring[there:], ring[: there + 1], joined[here:]])
    return joined
