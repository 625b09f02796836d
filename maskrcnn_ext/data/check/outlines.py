"""Makes polygons valid: inside the image, without crossings and without holes, which COCO's polygons cannot have."""

from __future__ import annotations

import numpy as np
import shapely

_MIN_AREA = 0.5  # square pixels; smaller parts are slivers that clipping leaves


def fix_polygons(polygons: list[np.ndarray], height: int, width: int) -> list[list[float]]:
    """Returns the part of polygons inside an image, as polygons [x, y, x, y, ...] that are valid in shapely's terms.

    A valid polygon is returned unchanged. A self-crossing polygon covers the points that the rasteriser fills: those inside an odd number
    of its loops.
    """
    fixed = []
    frame = shapely.box(0, 0, width, height)
    for points in polygons:
        shape = shapely.Polygon(points)
        if shape.is_valid and frame.covers(shape):
            fixed.append(points.ravel().tolist())
            continue
        inside = shapely.make_valid(shape).intersection(frame)
        for part in _parts(inside):
            if part.area >= _MIN_AREA:
                fixed.append(np.array(part.exterior.coords)[:-1].ravel().tolist())
    return fixed


def _parts(shape: shapely.Geometry) -> list[shapely.Polygon]:
    """Returns a shape as polygons without holes; it is cut through each hole, along a column of pixels."""
    if not isinstance(shape, shapely.Polygon):
        return [part for piece in getattr(shape, "geoms", ()) for part in _parts(piece)]
    if not shape.interiors:
        return [shape]
    x0, y0, x1, y1 = shape.bounds
    hole = shape.interiors[0].bounds
    cut = (hole[0] + hole[2]) / 2
    whole = round(cut)
    if hole[0] < whole < hole[2]:
        cut = whole
    halves = (shapely.box(x0, y0, cut, y1), shapely.box(cut, y0, x1, y1))
    return [part for half in halves for part in _parts(shape.intersection(half))]
