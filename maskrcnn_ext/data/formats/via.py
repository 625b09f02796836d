"""VGG Image Annotator JSON, versions 1.x and 2.x (www.robots.ox.ac.uk/~vgg/software/via).

The file maps "<file name><size in bytes>" to ``{"filename", "regions", ...}``. Regions are a dict ("0", "1", ...) in 1.x and a list in
2.x; a 2.x *project* file has the same mapping under ``_via_img_metadata``. Polygons keep their coordinates; rectangles, circles and
ellipses become polygons.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from json import loads
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.formats.reading import check_outline, image_size
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, box_of_polygons
from maskrcnn_ext.errors import InputError

# Corners of the polygon that stands for an ellipse: its area is within 0.2 % of the ellipse's.
_ELLIPSE_CORNERS = 64


def read_via(
    json: Path, images: Path, *, classes: Sequence[str] | None = None, attribute: str | None = None
) -> DataSet:
    """Reads a VIA annotation file.

    Args:
        json: the annotations as VIA saves or exports them.
        images: the folder of the images.
        classes: class names. With one class every region is of it. When not given: the attribute's values, sorted, or "object" without
            an attribute.
        attribute: the region attribute that holds the class name; needed with more than one class.

    Returns:
        A record an annotated file, in the order of the JSON; files with no region are kept.

    Raises:
        InputError: broken JSON, a missing or unreadable image, an unknown class, or a region that encloses no area.
    """
    if classes and len(classes) > 1 and attribute is None:
        raise InputError(
            f"{json}: with {len(classes)} classes, `attribute` must name the region attribute that holds the class"
        )
    try:
        data = loads(json.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{json}: not a JSON file ({error})") from error
    entries = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) and "filename" in e for e in entries.values()):
        raise InputError(
            f"{json}: not a VIA annotation file (expected a mapping to entries with `filename` and `regions`)"
        )

    if not classes:
        classes = ["object"] if attribute is None else _values(entries.values(), attribute)
    records = []
    for key, entry in entries.items():
        file = images / entry["filename"]
        height, width = image_size(file, f"{json}: record {key!r}")
        record = ImageRecord(str(file), entry["filename"], height, width)
        for region in _regions(entry):
            where = f"{json}: record {key!r}, region {len(record.annotations)}"
            polygon = _polygon(region.get("shape_attributes", {}), where)
            check_outline(polygon, height, width, where)
            category = (
                0 if attribute is None else _category(region.get("region_attributes", {}), attribute, classes, where)
            )
            box = box_of_polygons([polygon], height, width)
            record.annotations.append(Annotation(category, box, [polygon]))
        records.append(record)
    return DataSet(list(classes), records)


def _regions(entry: dict[str, Any]) -> list[dict[str, Any]]:
    regions = entry.get("regions", [])
    return list(regions.values()) if isinstance(regions, dict) else regions


def _values(entries: Iterable[dict[str, Any]], attribute: str) -> list[str]:
    attributes = (region.get("region_attributes", {}) for entry in entries for region in _regions(entry))
    return sorted({found[attribute] for found in attributes if isinstance(found.get(attribute), str)})


def _category(attributes: dict[str, Any], attribute: str, classes: Sequence[str], where: str) -> int:
    value = attributes.get(attribute)
    if value is None or value not in classes:
        raise InputError(f"{where}: attribute {attribute!r} is {value!r}, expected one of {', '.join(classes)}")
    return list(classes).index(value)


def _polygon(shape: dict[str, Any], where: str) -> list[float]:
    """Returns [x, y, x, y, ...] of a region's shape."""
    name = shape.get("name")
    try:
        if name in ("polygon", "polyline"):
            points = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
        elif name == "rect":
            x, y, width, height = (float(shape[field]) for field in ("x", "y", "width", "height"))
            points = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        elif name == "circle":
            points = _ellipse(shape["cx"], shape["cy"], shape["r"], shape["r"], 0.0)
        elif name == "ellipse":
            points = _ellipse(shape["cx"], shape["cy"], shape["rx"], shape["ry"], shape.get("theta", 0.0))
        else:
            raise InputError(f"{where}: shape {name!r} encloses no area (use polygon, rect, circle or ellipse)")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: {name} lacks or spoils {error}") from error
    if len(points) < 3:
        raise InputError(f"{where}: a polygon needs 3 points, this one has {len(points)}")
    return [float(value) for point in points for value in point]


def _ellipse(cx: float, cy: float, rx: float, ry: float, theta: float) -> list[tuple[float, float]]:
    """Returns the corners of an ellipse; ``theta`` turns its first axis, in radians clockwise on the screen."""
    points = []
    for corner in range(_ELLIPSE_CORNERS):
        angle = 2 * math.pi * corner / _ELLIPSE_CORNERS
        x, y = rx * math.cos(angle), ry * math.sin(angle)
        points.append((cx + x * math.cos(theta) - y * math.sin(theta), cy + x * math.sin(theta) + y * math.cos(theta)))
    return points
