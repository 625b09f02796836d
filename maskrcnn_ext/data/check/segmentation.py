"""Reads as much as possible of an annotation's segmentation, and reports the faults of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskrcnn_ext.data.formats.coco_fields import Box, nest_polygons
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import rle_area, rle_box, segmentation_to_rle
from maskrcnn_ext.ops.rle_checks import check_rle, check_rle_parts


@dataclass(slots=True, eq=False)
class Segmentation:
    """The readable part of a ``segmentation``, and its faults.

    Attributes:
        form: "none", "polygons", "rle", or "unknown" for any other value.
        polygons: the valid polygons, (P, 2) float64 each, x and y in sub-pixel coordinates.
        problems: (kind of fault, message) for each invalid part.
        rle: the part of the mask inside the image, as a compressed RLE; None if no part is valid, or the image's size is unknown.
        area: number of pixels of `rle`.
        box: tight box (x0, y0, x1, y1) of `rle`; None if it has no pixel.
    """

    form: str
    polygons: list[np.ndarray] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    rle: dict[str, Any] | None = None
    area: int = 0
    box: Box | None = None


def parse_segmentation(value: Any, height: int | None, width: int | None) -> Segmentation:
    """Reads a COCO ``segmentation`` of an image of `height` x `width` pixels; None if its size is unknown."""
    if value is None or value == []:
        return Segmentation("none")
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        found = _parse_parts(value, height, width)
    elif isinstance(value, list):
        found = _parse_polygons(value)
        if found.polygons and height is not None and width is not None:
            try:
                found.rle = segmentation_to_rle([points.ravel().tolist() for points in found.polygons], height, width)
            except InputError as error:
                found.polygons, found.problems = [], [*found.problems, ("segmentation-broken", str(error))]
    elif isinstance(value, dict):
        found = Segmentation("rle")
        try:
            found.rle = check_rle(value, height, width)
        except ValueError as error:
            found.problems.append(("segmentation-broken", str(error)))
    else:
        problem = f"`segmentation` is a {type(value).__name__}"
        return Segmentation("unknown", problems=[("segmentation-broken", problem)])
    if found.rle is not None:
        found.area = rle_area(found.rle)
        if found.area:
            found.box = rle_box(found.rle)
    return found


def _parse_parts(value: list[Any], height: int | None, width: int | None) -> Segmentation:
    """Reads a list of RLEs, which may also have polygons: the parts of one object."""
    found = Segmentation("rle", problems=[("segmentation-parts", f"a list of {len(value)} RLEs")])
    if height is not None and width is not None:
        try:
            found.rle = check_rle_parts(value, height, width)
        except ValueError as error:
            found.problems = [("segmentation-broken", str(error))]
    return found


def _parse_polygons(value: list[Any]) -> Segmentation:
    found = Segmentation("polygons")
    nested = nest_polygons(value)
    if nested is not value:
        form = "a list of points" if isinstance(value[0], list) else "one flat list"
        found.problems.append(("segmentation-broken", f"{form}: other tools expect [[x, y, x, y, ...]]"))
    for number, polygon in enumerate(nested):
        try:
            points = np.array(polygon)
        except ValueError:  # lists of different lengths
            points = np.empty((0, 0))
        if points.ndim != 1 or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
            found.problems.append(("segmentation-broken", f"polygon {number} is not a list of finite numbers"))
        elif len(points) % 2:
            found.problems.append(("segmentation-broken", f"polygon {number} has {len(points)} numbers, an odd count"))
        elif len(different := set(zip(polygon[::2], polygon[1::2], strict=True))) < 3:
            found.problems.append(("polygon-short", f"polygon {number} has {len(different)} different points"))
        else:
            found.polygons.append(points.astype(np.float64).reshape(-1, 2))
    return found
