"""VGG Image Annotator JSON, versions 1 to 3 (www.robots.ox.ac.uk/~vgg/software/via).

The file maps "<file name><size in bytes>" to ``{"filename", "regions", ...}``. Regions are a dict ("0", "1", ...) in 1.x and a list in
2.x; a 2.x *project* file has the same mapping under ``_via_img_metadata``, and VIA's CSV has a region a row. Polygons keep their
coordinates; rectangles, circles and ellipses become polygons. Projects of 3.x are read as of 2.x
(:mod:`maskrcnn_ext.data.formats.via_project`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from json import loads
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import category_of, finite
from maskrcnn_ext.data.formats.file_names import path_below
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.polygons import box_of_polygons, check_outline, ellipse
from maskrcnn_ext.data.formats.reading_many import collected
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_json, read_rows
from maskrcnn_ext.data.formats.via_project import entries_of_project, is_project
from maskrcnn_ext.data.formats.warnings import MAX_CLASSES, Tally, check_rectangles, warn_of_classes, warn_of_rectangles
from maskrcnn_ext.errors import InputError

_COLUMNS = {"filename", "region_shape_attributes", "region_attributes"}  # of VIA's CSV


def read_via(
    json: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    attribute: str | None = None,
    rectangles: str = "masks",
    faults: list[str] | None = None,
) -> DataSet:
    """Reads a VIA annotation file.

    Args:
        json: the annotations as VIA saves or exports them.
        images: the folder of the images.
        classes: class names. With one class, every region is of it. If None: the values of the attribute, sorted, or "object" without
            an attribute.
        attribute: the region attribute that holds the class name, as text, choice or check box; needed with more than one class.
        rectangles: "masks" if a drawn rectangle is the mask of its object, which a warning counts; "boxes" if it is only its box.
        faults: gets the faults of records and regions, which are left out; None to raise the first.

    Returns:
        One record per annotated file, in the order of the JSON; files without regions are kept. Points are left out, with a warning that
        counts them.

    Raises:
        InputError: broken JSON, a missing or unreadable image, two records of one, an unknown class, or a region that
            encloses no area.
    """
    if classes and len(classes) > 1 and attribute is None:
        raise InputError(
            f"{json}: with {len(classes)} classes, `attribute` must name the region attribute that holds the class"
        )
    check_rectangles(rectangles, json)
    entries = read_entries(json)
    regions: dict[str, list[dict[str, dict[str, Any]]]] = {}
    for key, entry in entries.items():
        with collected(faults):
            regions[key] = read_regions(entry, f"{json}: record {key!r}")
    every = [region for of_entry in regions.values() for region in of_entry]
    if attribute is None and not classes:
        _warn_of_attributes(json, every)
    if not classes:
        classes = (
            ["object"] if attribute is None else sorted({one for each in every for one in _values(each, attribute)})
        )
    records: dict[str, ImageRecord] = {}
    tally = Tally()
    num_rectangles = 0
    for key, of_entry in regions.items():
        with collected(faults):
            record = _record(entries[key]["filename"], images, records, f"{json}: record {key!r}")
            for number, region in enumerate(of_entry):
                where = f"{json}: record {key!r}, region {number}"
                name = region["shape_attributes"].get("name")
                if name == "point":
                    tally.open_shapes.append(f"a point, {where}")
                    continue
                with collected(faults):
                    annotation = _annotation(region, record, classes, attribute, where)
                    num_rectangles += name == "rect"
                    if name == "rect" and rectangles == "boxes":
                        annotation.segmentation = None
                    record.annotations.append(annotation)
    tally.warn(json)
    if rectangles == "masks":
        warn_of_rectangles(num_rectangles, sum(len(record.annotations) for record in records.values()), json)
    return DataSet(list(classes), list(records.values()))


def _record(name: Any, images: Path, records: dict[str, ImageRecord], where: str) -> ImageRecord:
    """Returns the record of an image without annotations, and adds it to `records`."""
    file = path_below(images, name, where)
    height, width = image_size(file, where)
    if name in records:
        raise InputError(f"{where}: {name} has another record: keep one of them")
    record = records[name] = ImageRecord(str(file), name, height, width)
    return record


def _annotation(
    region: dict[str, dict[str, Any]], record: ImageRecord, classes: Sequence[str], attribute: str | None, where: str
) -> Annotation:
    height, width = record.height, record.width
    polygon = _polygon(region["shape_attributes"], where)
    check_outline(polygon, height, width, where)
    category = 0
    if attribute is not None:
        category = category_of(", ".join(_values(region, attribute)), classes, f"{where}: attribute {attribute!r}")
    return Annotation(category, box_of_polygons([polygon], height, width), [polygon])


def read_entries(file: Path) -> dict[str, Any]:
    """Returns the entries of a file by key, each with ``filename`` and ``regions``.

    Raises:
        InputError: the file is broken, or of another program.
    """
    if file.suffix.lower() == ".csv":
        return _read_table(file)
    data = read_json(file)
    if is_project(data):
        return entries_of_project(data, str(file))
    entries = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) and "filename" in e for e in entries.values()):
        raise InputError(
            f"{file}: not a VIA annotation file (expected a mapping to entries with `filename` and `regions`)"
        )
    return entries


def is_via_table(file: Path) -> bool:
    """Returns whether a CSV file has VIA's columns. Reads the beginning only."""
    try:
        with file.open("rb") as stream:
            start = stream.read(1000).replace(b"\0", b"")  # of UTF-16
    except OSError:
        return False
    return all(column.encode() in start for column in _COLUMNS)


def _read_table(file: Path) -> dict[str, Any]:
    """Returns the entries of a CSV file: a row for each region, or for an image without any."""
    entries: dict[str, Any] = {}
    header, *rows = read_rows(file) or [[]]
    if not set(header) >= _COLUMNS:
        raise InputError(f"{file}: not a VIA table (expected the columns {', '.join(sorted(_COLUMNS))})")
    for number, fields in enumerate(rows, start=2):
        row = dict(zip(header, fields, strict=False))
        try:
            name, shape, attributes = (
                row["filename"],
                loads(row["region_shape_attributes"]),
                loads(row["region_attributes"]),
            )
        except KeyError as error:
            raise InputError(f"{file}, line {number}: no {error}") from error
        except (RecursionError, ValueError) as error:
            raise InputError(f"{file}, line {number}: not JSON ({error})") from error
        entry = entries.setdefault(name, {"filename": name, "regions": []})
        if shape:
            entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return entries


def read_regions(entry: dict[str, Any], where: str) -> list[dict[str, dict[str, Any]]]:
    """Returns the regions of an image, each with both kinds of attributes."""
    regions = entry.get("regions") or []
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(regions, list):
        raise InputError(f"{where}: `regions` is {regions!r:.100}, expected a list or a mapping")
    kinds = ("shape_attributes", "region_attributes")
    for number, region in enumerate(regions):
        if not isinstance(region, dict) or not all(isinstance(region.get(kind, {}), dict) for kind in kinds):
            raise InputError(f"{where}, region {number}: expected `shape_attributes` and `region_attributes`")
    return [{kind: region.get(kind, {}) for kind in kinds} for region in regions]


def _values(region: dict[str, dict[str, Any]], attribute: str) -> list[str]:
    """Returns the values of an attribute: the text of a text field, or the ticked names of check boxes {name: true, ...}."""
    value = region["region_attributes"].get(attribute, "")
    found = [name for name, ticked in value.items() if ticked] if isinstance(value, dict) else [value]
    return [text for text in (str(one).strip() for one in found) if text]


def class_attribute(regions: Sequence[dict[str, dict[str, Any]]]) -> str | None:
    """Returns the attribute that holds the class: the only one of all regions, with one value in each; None if it is not clear.

    Args:
        regions: see :func:`read_regions`.
    """
    names = {name for region in regions for name in region["region_attributes"]}
    if len(names) != 1:
        return None
    (name,) = names
    values = [_values(region, name) for region in regions]
    is_class = all(len(one) == 1 for one in values) and len({one[0] for one in values}) <= MAX_CLASSES
    return name if is_class else None


def _warn_of_attributes(json: Path, regions: list[dict[str, dict[str, Any]]]) -> None:
    """Warns if an attribute that is not used has several values, since these may be classes."""
    for name in dict.fromkeys(name for region in regions for name in region["region_attributes"]):
        warn_of_classes(Counter(value for region in regions for value in _values(region, name)), name, json)


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
            cx, cy, radius = (float(shape[field]) for field in ("cx", "cy", "r"))
            points = ellipse(cx, cy, radius, radius)
        elif name == "ellipse":
            cx, cy, rx, ry = (float(shape[field]) for field in ("cx", "cy", "rx", "ry"))
            points = ellipse(cx, cy, rx, ry, float(shape.get("theta") or 0.0))
        else:
            raise InputError(f"{where}: shape {name!r} encloses no area (use polygon, rect, circle or ellipse)")
    except InputError:
        raise
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{where}: the {name} is broken, or has no {error}") from error
    if len(points) < 3:
        raise InputError(f"{where}: a polygon needs 3 points, this one has {len(points)}")
    return finite((value for point in points for value in point), where)


FORMAT = Format(
    name="via",
    description="VGG Image Annotator 1 to 3, JSON or CSV",
    read=read_via,
    options=(
        Option("json", "the annotations as VIA saves or exports them", "file", required=True),
        Option("images", "the images", "folder", required=True),
        Option("attribute", "the region attribute that holds the class name", "text"),
        Option("rectangles", '"masks", or "boxes" to read drawn rectangles as boxes', "text"),
    ),
    shorthand=("json", "images"),
    lists_faults=True,
)
