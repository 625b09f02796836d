"""A Supervisely project (docs.supervisely.com): ``meta.json``, and per data set ``ann/<image>.json`` and ``img/<image>``.

Coordinates are sub-pixel ones, as the labelling tool writes them. Polygons may have holes; bitmaps are PNGs in zlib and base64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import clip_box, finite
from maskrcnn_ext.data.formats.drawn_objects import IGNORE_LABEL, DrawnPart, add_object, join_parts, read_patch
from maskrcnn_ext.data.formats.file_names import list_files
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.polygons import rotated_box
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_json
from maskrcnn_ext.data.formats.warnings import Tally, check_rectangles
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle

_OPEN_SHAPES = ("point", "line", "polyline", "graph", "cuboid", "cuboid_2d", "any")
_BITMAPS = ("bitmap", "alpha_mask")
_SHAPES = ("polygon", "rectangle", "oriented_bbox", *_BITMAPS)


def read_supervisely(
    folder: Path,
    *,
    classes: Sequence[str] | None = None,
    dataset: str | None = None,
    rectangles: str = "boxes",
    faults: list[str] | None = None,
) -> DataSet:
    """Reads a project.

    Args:
        folder: the project, with ``meta.json``; data sets may be nested.
        classes: class names. If None, those of ``meta.json``. An object of the class ``__ignore__`` is a crowd of each class.
        dataset: the data set of the project to read; None for all.
        rectangles: "boxes" if a rectangle is an object without a mask; "masks" if it is the mask of its object.
        faults: gets the faults of files and objects, which are left out; None to raise the first.

    Returns:
        One record per annotated image, sorted by name; its id is ``<data set>/<image>``. Rotated boxes become polygons; points, lines,
        graphs and cuboids are left out. Warnings count both.

    Raises:
        InputError: no or broken JSON, a missing image, one of another size than its JSON says, or a broken object.
    """
    check_rectangles(rectangles, folder)
    meta = read_json(folder / "meta.json")
    listed = meta.get("classes") if isinstance(meta, dict) else None
    if not isinstance(listed, list) or not all(isinstance(c, dict) and isinstance(c.get("title"), str) for c in listed):
        raise InputError(
            f"{folder / 'meta.json'}: not of a Supervisely project (expected `classes` with a `title` each)"
        )
    names = list(classes or (each["title"] for each in listed if each["title"] != IGNORE_LABEL))
    files = [file for file in list_files(folder, "**/*.json") if file.parent.name == "ann"]
    if not files:
        raise InputError(f"{folder}: no files */ann/*.json here")
    if dataset is not None:
        files = [file for file in files if file.relative_to(folder).parts[0] == dataset]
        if not files:
            raise InputError(f"{folder}: no data set {dataset!r}, it has {', '.join(list_data_sets(folder))}")
    tally = Tally()

    def read(file: Path) -> ImageRecord:
        return _record(file, folder, names, rectangles, tally, faults)

    records = in_threads(read, files, faults)
    tally.warn(folder)
    return DataSet(names, records)


def list_data_sets(folder: Path) -> list[str]:
    """Returns the names of the data sets of a project."""
    return [place.name for place in list_files(folder, "*") if list_files(place, "**/ann")]


def _record(
    file: Path, folder: Path, classes: Sequence[str], rectangles: str, tally: Tally, faults: list[str] | None
) -> ImageRecord:
    content = read_json(file)
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise InputError(f"{file}: not an annotation of Supervisely (expected a mapping with `objects`)")
    image = file.parent.parent / "img" / file.name.removesuffix(".json")
    height, width = image_size(image, str(file))
    size = content.get("size")
    if not isinstance(size, dict) or (size.get("height"), size.get("width")) != (height, width):
        raise InputError(f"{file}: `size` is {size!r:.100}, but {image} is {width} x {height} (width, height)")
    data_set = file.parent.parent.relative_to(folder).as_posix()
    record = ImageRecord(str(image), f"{data_set}/{image.name}", height, width)
    for number, entry in enumerate(objects):
        with collected(faults):
            where = f"{file}: object {number}"
            if not isinstance(entry, dict) or not isinstance(entry.get("classTitle"), str):
                raise InputError(f"{where} has no `classTitle`")
            kind, label = entry.get("geometryType"), entry["classTitle"]
            if kind in _OPEN_SHAPES:
                tally.open_shapes.append(f"a {kind}, {where}")
                continue
            if kind not in _SHAPES:
                raise InputError(f"{where} has the `geometryType` {kind!r:.50}, expected one of {', '.join(_SHAPES)}")
            key = entry.get("id") if isinstance(entry.get("id"), int | str) else None
            if kind in _BITMAPS:
                annotation = join_parts([_bitmap(entry.get("bitmap"), where)], height, width, key)
            elif kind == "oriented_bbox":
                annotation = join_parts([_oriented(entry, where, tally)], height, width, key)
            else:
                annotation = _outlined(kind, entry.get("points"), height, width, where, tally, key)
                if kind == "rectangle" and rectangles == "boxes" and label != IGNORE_LABEL:
                    annotation.segmentation = None
            add_object(record, annotation, label, classes, where)
    return record


def _bitmap(bitmap: Any, where: str) -> DrawnPart:
    if not isinstance(bitmap, dict):
        raise InputError(f"{where}: `bitmap` is {bitmap!r:.100}, expected a mapping")
    origin = bitmap.get("origin")
    if not isinstance(origin, list) or len(origin) != 2:
        raise InputError(f"{where}: `origin` is {origin!r:.100}, expected [x, y]")
    x, y = finite(origin, f"{where}, `origin`")
    patch = read_patch(bitmap.get("data"), f"{where}: `data`", compressed=True)
    return DrawnPart(where, [], patch, (round(x), round(y)))


def _oriented(entry: dict[str, Any], where: str, tally: Tally) -> DrawnPart:
    """Returns the polygon of a box that is rotated around its centre, clockwise; the angle is in radians."""
    x0, y0, x1, y1 = _ring(entry.get("points"), f"{where}, `points`", 2)[:4]
    angle = math.degrees(finite([entry.get("angle")], f"{where}, `angle`")[0])
    tally.rotated.append(where)
    return DrawnPart(where, rotated_box((x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0), abs(y1 - y0), angle))


def _outlined(
    kind: str, points: Any, height: int, width: int, where: str, tally: Tally, key: int | str | None
) -> Annotation:
    """Returns an object of a polygon, from which its holes are cut, or of a rectangle."""
    if not isinstance(points, dict) or not isinstance(points.get("interior", []), list):
        raise InputError(f"{where}: `points` is {points!r:.100}, expected `exterior` and `interior`")
    outline = _ring(points.get("exterior"), f"{where}, `exterior`", 2 if kind == "rectangle" else 3)
    if kind == "rectangle":
        x0, y0, x1, y1 = outline[:4]
        box = clip_box((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), height, width, where, tally.clipped)
        left, top, right, bottom = box
        return Annotation(0, box, [[left, top, right, top, right, bottom, left, bottom]], id=key)
    holes = [_ring(ring, f"{where}, `interior`", 3) for ring in points.get("interior", [])]
    whole = join_parts([DrawnPart(where, outline)], height, width, key)
    if not holes:
        return whole
    join_parts([DrawnPart(where, hole) for hole in holes], height, width)  # raises if one is far outside
    outer, inner = (decode_rle(segmentation_to_rle(rings, height, width)) for rings in ([outline], holes))
    return join_parts([DrawnPart(where, [], np.asarray(outer & ~inner, bool))], height, width, key)


def _ring(points: Any, where: str, least: int) -> list[float]:
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise InputError(f"{where}: expected a list of [x, y], found {points!r:.100}")
    if len(points) < least:
        raise InputError(f"{where}: expected at least {least} points, found {len(points)}")
    return finite((value for point in points for value in point), where)


FORMAT = Format(
    name="supervisely",
    description="Supervisely project: polygons, rectangles and bitmaps",
    read=read_supervisely,
    options=(
        Option("folder", "the project, with `meta.json`", "folder", required=True),
        Option("dataset", "which data set of the project", "text"),
        Option("rectangles", '"boxes", or "masks" to read rectangles as masks', "text"),
    ),
    shorthand=("folder",),
    split_option="dataset",
    list_splits=list_data_sets,
    lists_faults=True,
)
