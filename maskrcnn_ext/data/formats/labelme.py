"""labelme JSON, versions 3 to 5 (github.com/wkentaro/labelme): one file per image, ``{"shapes": [...], "imagePath": ...}``.

Shapes of one ``label`` and ``group_id`` are parts of one object, as in labelme's own converters. Flags are not read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import finite
from maskrcnn_ext.data.formats.drawn_objects import IGNORE_LABEL, DrawnPart, add_object, join_parts, read_patch
from maskrcnn_ext.data.formats.file_names import find_by_last_parts, list_files, parse_name
from maskrcnn_ext.data.formats.image_files import image_size, is_image
from maskrcnn_ext.data.formats.polygons import ellipse
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_json, read_text
from maskrcnn_ext.data.formats.warnings import Tally, check_rectangles, warn_of_rectangles, warn_of_unlabelled
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

LABELS_FILE = "labels.txt"
_BACKGROUND = "_background_"  # a label of labelme's converters
# Writes the images that files of a folder hold. `images` is where this reader looks for them.
_WRITE_IMAGES = (
    "import base64, json, pathlib as p; [p.Path({images!r}, p.PureWindowsPath(d['imagePath']).name).write_bytes(base64.b64decode("
    "d['imageData'])) for f in p.Path({folder!r}).glob('*.json') for d in [json.loads(f.read_text('utf-8'))] if d.get('imageData')]"
)
_OPEN_SHAPES = ("point", "points", "line", "linestrip")
# How many points each shape has. X-AnyLabeling, which writes the same files, calls a rotated rectangle "rotation".
_POINTS = {
    "polygon": range(3, 2**31),
    "rectangle": (2, 4),
    "oriented_rectangle": (4,),
    "rotation": (4,),
    "circle": (2,),
    "mask": (2,),
}


def read_labelme(
    folder: Path,
    images: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    rectangles: str = "masks",
    faults: list[str] | None = None,
) -> DataSet:
    """Reads a folder of labelme files.

    Args:
        folder: of the ``*.json``; of folders that have them, if it has none itself.
        images: the folder of the images. If None, ``imagePath`` is relative to the JSON file, or the image is beside it.
        classes: class names. If None, those of ``labels.txt`` in the folder, one a line, and then the other labels, sorted. A region
            labelled ``__ignore__``, which labelme's converters leave out of every class, is a crowd of each class.
        rectangles: "masks" if a drawn rectangle is the mask of its object, which a warning counts; "boxes" if it is only its box.
        faults: gets the faults of files and objects, which are left out; None to raise the first.

    Returns:
        One record per file, sorted by name. Objects with a ``mask`` shape are RLEs of the whole image, all others polygons. Points, lines,
        shapes labelled ``_background_`` and JSON files without shapes are left out, with warnings that count them.

    Raises:
        InputError: no or broken JSON, a missing or unreadable image, one of another size than the JSON says, a label outside of
            ``classes``, or a shape of an unknown type.
    """
    check_rectangles(rectangles, folder)
    files = list_files(folder, "*.json") or list_files(folder, "**/*.json")
    if not files:
        raise InputError(f"{folder}: no *.json files here, one an image is expected")
    tally = Tally()
    others: list[Path] = []
    entries = [entry for file in files if (entry := _read_collected(file, tally, others, faults))]
    if len(others) == len(files):
        raise InputError(f"{others[0]}: not a labelme file (expected a mapping with `shapes` and `imagePath`)")
    if others:
        logger.warning(
            "%s: left out %s of another kind, such as %s", folder, plural(len(others), "JSON file"), others[0]
        )
    if not classes:
        labels = {str(shape["label"]) for _, entry in entries for _, shape in entry["shapes"]}
        listed = _listed_classes(folder)
        classes = [*listed, *sorted(labels - {IGNORE_LABEL, *listed})]
    names = list(classes)

    def read(pair: tuple[Path, dict[str, Any]]) -> ImageRecord:
        image_id = pair[0].relative_to(folder).with_suffix("").as_posix()
        return _record(*pair, image_id, images, names, rectangles, faults)

    records = in_threads(read, entries, faults)
    tally.warn(folder)
    used = {record.file_name for record in records}
    places = sorted({Path(file).parent for file in used})
    warn_of_unlabelled(
        [file for place in places for file in list_files(place, "*") if is_image(file) and str(file) not in used],
        folder,
    )
    if rectangles == "masks":
        shapes = [shape for _, entry in entries for _, shape in entry["shapes"]]
        warn_of_rectangles(sum(shape.get("shape_type") == "rectangle" for shape in shapes), len(shapes), folder)
    return DataSet(names, records)


def _listed_classes(folder: Path) -> list[str]:
    """Returns the class names in ``labels.txt``, which labelme takes with ``--labels``; none if there is no such file."""
    file = folder / LABELS_FILE
    names = map(str.strip, read_text(file).splitlines() if file.is_file() else ())
    return list(dict.fromkeys(name for name in names if name not in ("", IGNORE_LABEL, _BACKGROUND)))


def _read_collected(
    file: Path, tally: Tally, others: list[Path], faults: list[str] | None
) -> tuple[Path, dict[str, Any]] | None:
    """Returns a file and its content, with (number, shape) for each shape that has a label and encloses an area; None for a broken file.

    A file of another kind is added to `others`.
    """
    with collected(faults):
        entry = read_json(file)
        if not isinstance(entry, dict) or "shapes" not in entry:
            others.append(file)
            return None
        if not isinstance(entry["shapes"], list) or not entry.get("imagePath"):
            raise InputError(f"{file}: not a labelme file (expected a mapping with `shapes` and `imagePath`)")
        shapes = []
        for number, shape in enumerate(entry["shapes"]):
            with collected(faults):
                _check_label(shape, file, number)
                if shape.get("shape_type") in _OPEN_SHAPES:
                    tally.open_shapes.append(f"a {shape['shape_type']}, {file}: shape {number}")
                elif shape["label"] == _BACKGROUND:
                    tally.background.append(f"{file}: shape {number}")
                else:
                    shapes.append((number, shape))
        return file, {**entry, "shapes": shapes}
    return None


def _check_label(shape: Any, file: Path, number: int) -> None:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
        raise InputError(f"{file}: shape {number} has no `label`")


def _record(
    file: Path,
    entry: dict[str, Any],
    image_id: str,
    images: Path | None,
    classes: Sequence[str],
    rectangles: str,
    faults: list[str] | None,
) -> ImageRecord:
    image = _image_file(file, parse_name(entry["imagePath"], f"{file}: `imagePath`"), images)
    if entry.get("imageData") and (image == file or not image.is_file()):
        command = _WRITE_IMAGES.format(images=str(images or file.parent), folder=str(file.parent))
        advice = (
            "set `imagePath` to an image" if image == file else f'write all images of the folder: python -c "{command}"'
        )
        raise InputError(f"{file}: no image {image}; it is embedded in the JSON as `imageData`: {advice}")
    height, width = image_size(image, str(file))
    stated = (entry.get("imageHeight") or height, entry.get("imageWidth") or width)
    if stated != (height, width):
        raise InputError(f"{file}: says {stated[1]} x {stated[0]} (width, height), but {image} is {width} x {height}")
    record = ImageRecord(str(image), image_id, height, width)
    objects: dict[Any, list[tuple[dict[str, Any], str]]] = {}
    for number, shape in entry["shapes"]:
        label, group = str(shape["label"]), shape.get("group_id")
        key = (label, number, None) if group is None else (label, None, str(group))
        objects.setdefault(key, []).append((shape, f"{file}: shape {number}"))
    for (label, _, group), shapes in objects.items():
        with collected(faults):
            annotation = join_parts([_part(shape, where) for shape, where in shapes], height, width, group)
            is_box = label != IGNORE_LABEL and all(shape.get("shape_type") == "rectangle" for shape, _ in shapes)
            if rectangles == "boxes" and is_box:
                annotation.segmentation = None
            add_object(record, annotation, label, classes, shapes[0][1])
    return record


def _image_file(file: Path, path: PureWindowsPath, images: Path | None) -> Path:
    if images is None:
        there = file.parent / path.as_posix()
        beside = file.parent / path.name  # where the two were moved together
        return there if there.is_file() or not beside.is_file() else beside
    return find_by_last_parts(images, path) or images / path.name


def _part(shape: dict[str, Any], where: str) -> DrawnPart:
    kind = str(shape.get("shape_type") or "polygon")  # version 3 had nothing else
    points = _points(kind, shape.get("points"), where)
    if kind != "mask":
        return DrawnPart(where, _polygon(kind, points))
    (x, y), _ = points  # the PNG's first pixel is at the first point
    return DrawnPart(where, [], read_patch(shape.get("mask"), f"{where}: `mask`"), (round(x), round(y)))


def _points(kind: str, points: Any, where: str) -> list[tuple[float, float]]:
    if kind not in _POINTS:
        raise InputError(f"{where}: {kind!r:.100} encloses no area or is not known, use one of {', '.join(_POINTS)}")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise InputError(f"{where}: `points` are not a list of [x, y]")
    if len(points) not in _POINTS[kind]:
        raise InputError(f"{where}: a {kind} does not have {len(points)} points")
    numbers = finite((value for point in points for value in point), f"{where}, `points`")
    return list(zip(numbers[0::2], numbers[1::2], strict=True))


def _polygon(kind: str, points: list[tuple[float, float]]) -> list[float]:
    if kind == "circle":
        (cx, cy), edge = points
        radius = math.dist((cx, cy), edge)
        points = ellipse(cx, cy, radius, radius)
    elif kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return [value for point in points for value in point]


FORMAT = Format(
    name="labelme",
    description="labelme JSON, one file an image",
    read=read_labelme,
    options=(
        Option("folder", "the JSON files", "folder", required=True),
        Option("images", "the images, if they are not where the JSON files say", "folder"),
        Option("rectangles", '"masks", or "boxes" to read drawn rectangles as boxes', "text"),
    ),
    shorthand=("folder", "images"),
    lists_faults=True,
)
