"""Label Studio JSON (labelstud.io, "JSON" of its exports): tasks, ``{"data": {"image": URL}, "annotations": [{"result": [...]}]}``.

Coordinates are percent of the image's size. Regions are polygons, rectangles, ellipses and brush strokes, with labels of their own
(``polygonlabels``) or of the general ``labels``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import clip_box, finite
from maskrcnn_ext.data.formats.drawn_objects import IGNORE_LABEL, DrawnPart, add_object, join_parts
from maskrcnn_ext.data.formats.file_names import check_different, find_by_last_parts, parse_name
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES, image_size
from maskrcnn_ext.data.formats.polygons import ellipse
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_json, read_xml
from maskrcnn_ext.data.formats.warnings import Tally, check_rectangles
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.tool_rle import decode_brush

CONFIG_FILE = "label_config.xml"
_SHAPES = ("polygon", "rectangle", "ellipse", "brush")
_OPEN_SHAPES = ("keypoint", "vector")
_DIGITS = 9  # of coordinates in pixels: percent have rounding errors in the digits behind
_UPLOAD_HASH = re.compile(r"[0-9a-f]{8}-(?=.)")  # in front of the names of files that were uploaded in the browser


def read_label_studio(
    json: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    rectangles: str = "boxes",
    predictions: bool = False,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads a JSON export.

    Args:
        json: the export; "JSON", not "JSON-MIN". ``label_config.xml`` beside it may have the labelling interface of the project.
        images: the folder of the images. An image is found by the last parts of its URL, also if Label Studio put a hash before its name.
        classes: class names. If None, the labels of the interface, and then others in the file, sorted. A region labelled ``__ignore__``
            is a crowd of each class.
        rectangles: "boxes" if a rectangle is an object without a mask; "masks" if it is the mask of its object.
        predictions: whether tasks without annotation have the objects of their last prediction.
        faults: gets the faults of tasks and regions, which are left out; None to raise the first.

    Returns:
        One record per task; its id is the image's path below `images`. Of several annotations of a task, the one marked as ground truth is
        read, else the last that was not cancelled. Rotated rectangles become polygons; key points are left out. Warnings count both.

    Raises:
        InputError: broken or other JSON, a missing image, one of another size than a region says, or a broken region.
    """
    check_rectangles(rectangles, json)
    tasks = read_json(json)
    if not isinstance(tasks, list) or not all(isinstance(t, dict) and isinstance(t.get("data"), dict) for t in tasks):
        raise InputError(
            f"{json}: not a JSON export of Label Studio (expected a list of tasks with `data` and `annotations`; not JSON-MIN)"
        )
    regions: list[tuple[int, list[tuple[str, dict[str, Any], str]]]] = []
    tally = Tally()
    for number, task in enumerate(tasks):
        with collected(faults):
            where = f"{json}: task {task.get('id', number)!r:.50}"
            results = _results(task, predictions, where)
            found = list(_labelled(results, where, tally, faults))
            regions.append((number, found))
    interface = json.parent / CONFIG_FILE
    listed, key = _read_interface(interface) if interface.is_file() else ([], "image")
    if not classes:
        used = {label for _, found in regions for label, _, _ in found}
        classes = [*listed, *sorted(used - {IGNORE_LABEL, *listed})]
    names = list(classes)

    def read(entry: tuple[int, list[tuple[str, dict[str, Any], str]]]) -> ImageRecord:
        number, found = entry
        where = f"{json}: task {tasks[number].get('id', number)!r:.50}"
        file = find_image(tasks[number]["data"], images, where, key)
        return _record(file, found, images, names, rectangles, tally, faults, where)

    records = in_threads(read, regions, faults)
    tally.warn(json)
    check_different((record.image_id for record in records), f"{json}: image")
    return DataSet(names, records)


def _results(task: dict[str, Any], predictions: bool, where: str) -> list[Any]:
    """Returns the regions of the annotation of a task that counts."""
    found = task.get("annotations") or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"{where}: `annotations` are not a list of mappings")
    found = [one for one in found if not one.get("was_cancelled")]
    if not found and predictions:
        found = task.get("predictions") or []
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise InputError(f"{where}: `predictions` are not a list of mappings")
    if not found:
        return []
    results = next((one for one in found if one.get("ground_truth")), found[-1]).get("result") or []
    if not isinstance(results, list):
        raise InputError(f"{where}: `result` is {results!r:.100}, expected a list")
    return results


def _labelled(
    results: list[Any], where: str, tally: Tally, faults: list[str] | None
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yields the label, the region and the place of each region that has a label and encloses an area."""
    for number, result in enumerate(results):
        with collected(faults):
            place = f"{where}, region {number}"
            if not isinstance(result, dict) or not isinstance(result.get("type"), str):
                raise InputError(f"{place} has no `type`")
            kind = result["type"].lower()
            value = result.get("value")
            if kind.removesuffix("labels") in _OPEN_SHAPES:
                tally.open_shapes.append(f"a {kind.removesuffix('labels')}, {place}")
                continue
            # A tag without labels, such as <Polygon>, has a second entry of type "labels" with the same shape.
            if kind not in ("labels", *(f"{shape}labels" for shape in _SHAPES)):
                continue
            if not isinstance(value, dict):
                raise InputError(f"{place}: `value` is {value!r:.100}, expected a mapping")
            labels = value.get(kind)
            if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
                raise InputError(f"{place}: `{kind}` is {labels!r:.100}, expected a list of one label")
            yield labels[0], result, place


def _read_interface(file: Path) -> tuple[list[str], str]:
    """Returns the labels of regions in a labelling interface, and the key in the data of a task that has the image."""
    tree = read_xml(file)
    tags = [tag for tag in tree.iter() if tag.tag.lower().removesuffix("labels") in (*_SHAPES, "")]
    labels = dict.fromkeys(
        label.get("alias") or label.get("value") or "" for tag in tags for label in tag.iter("Label")
    )
    keys = [image.get("value", "").removeprefix("$") for image in tree.iter("Image")]
    return [name for name in labels if name not in ("", IGNORE_LABEL)], next(iter(keys), "image")


def _record(
    file: Path,
    regions: list[tuple[str, dict[str, Any], str]],
    images: Path,
    classes: Sequence[str],
    rectangles: str,
    tally: Tally,
    faults: list[str] | None,
    where: str,
) -> ImageRecord:
    height, width = image_size(file, where)
    record = ImageRecord(str(file), file.relative_to(images).as_posix(), height, width)
    for label, result, place in regions:
        with collected(faults):
            _check_size(result, height, width, file, place)
            value = result["value"]
            kind = _kind(value, place)
            if kind == "rectangle" and rectangles == "boxes" and not value.get("rotation") and label != IGNORE_LABEL:
                x, y, w, h = _pixels(value, ("x", "y", "width", "height"), height, width, place)
                box = clip_box((x, y, x + w, y + h), height, width, place, tally.clipped)
                add_object(record, Annotation(0, box, id=_id(result)), label, classes, place)
            else:
                part = _part(kind, value, height, width, place, tally)
                add_object(record, join_parts([part], height, width, _id(result)), label, classes, place)
    return record


def _id(result: dict[str, Any]) -> str | None:
    return result["id"] if isinstance(result.get("id"), str) else None


def find_image(data: dict[str, Any], images: Path, where: str, key: str = "image") -> Path:
    """Returns the file of the task's image, found by the last parts of its URL.

    Args:
        data: of the task. Without `key`, one of its values must be the URL of an image.
        images: the folder of the images.
        where: begins the error message.
        key: of the URL.
    """
    found = {
        name: value
        for name, value in data.items()
        if isinstance(value, str) and _path(value).suffix.lower() in IMAGE_SUFFIXES
    }
    if key not in found and len(found) != 1:
        raise InputError(f"{where}: `data` has {len(found)} images and no {key!r}, expected one: {data!r:.100}")
    path = parse_name(str(_path(found.get(key) or next(iter(found.values())))), f"{where}: `data`")
    found_below = find_by_last_parts(images, path)
    if found_below is not None:
        return found_below
    uploaded = images / _UPLOAD_HASH.sub("", path.name, count=1)
    return uploaded if uploaded.is_file() else images / path.name


def _path(url: str) -> PurePosixPath:
    """Returns the path in a URL, or the ``d`` of Label Studio's URLs of local files."""
    try:
        split = urlsplit(url)
    except ValueError:  # of a broken IPv6 address
        return PurePosixPath()
    local = parse_qs(split.query).get("d")
    return PurePosixPath(local[0] if local else unquote(split.path))


def _check_size(result: dict[str, Any], height: int, width: int, file: Path, where: str) -> None:
    if result.get("image_rotation"):
        raise InputError(f"{where}: the image was rotated in Label Studio (`image_rotation`): save it rotated instead")
    stated = (result.get("original_height", height), result.get("original_width", width))
    if stated != (height, width):
        raise InputError(f"{where}: says {stated[1]} x {stated[0]} (width, height), but {file} is {width} x {height}")


def _kind(value: dict[str, Any], where: str) -> str:
    """Returns the shape of a region by its fields, since a region of type "labels" may have any."""
    fields = {"points": "polygon", "rle": "brush", "radiusX": "ellipse", "width": "rectangle"}
    for field, kind in fields.items():
        if field in value:
            return kind
    raise InputError(f"{where}: has none of {', '.join(fields)}")


def _part(kind: str, value: dict[str, Any], height: int, width: int, where: str, tally: Tally) -> DrawnPart:
    if kind == "brush":
        if value.get("format", "rle") != "rle":
            raise InputError(f"{where}: brush of format {value['format']!r:.50}, expected 'rle'")
        try:
            return DrawnPart(where, [], decode_brush(value["rle"], height, width))
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
    if kind == "polygon":
        points = value["points"]
        if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise InputError(f"{where}: `points` are not a list of [x, y]")
        if len(points) < 3:
            raise InputError(f"{where}: a polygon needs 3 points, this one has {len(points)}")
        numbers = finite((number for point in points for number in point), f"{where}, `points`")
        scale = (width / 100, height / 100)
        return DrawnPart(where, [round(number * scale[i % 2], _DIGITS) for i, number in enumerate(numbers)])
    degrees = finite([value.get("rotation") or 0.0], f"{where}, `rotation`")[0]
    angle = math.radians(degrees)
    keys = ("x", "y", "radiusX", "radiusY") if kind == "ellipse" else ("x", "y", "width", "height")
    x, y, w, h = _pixels(value, keys, height, width, where)
    if kind == "ellipse":
        return DrawnPart(where, [number for point in ellipse(x, y, w, h, angle) for number in point])
    if degrees:
        tally.rotated.append(where)
    # Label Studio rotates a rectangle around its upper left corner.
    cos, sin = math.cos(angle), math.sin(angle)
    corners = ((0.0, 0.0), (w, 0.0), (w, h), (0.0, h))
    return DrawnPart(where, [n for a, b in corners for n in (x + a * cos - b * sin, y + a * sin + b * cos)])


def _pixels(value: dict[str, Any], keys: Sequence[str], height: int, width: int, where: str) -> list[float]:
    percent = finite((value.get(key) for key in keys), f"{where}, `{'`, `'.join(keys)}`")
    return [round(number * side / 100, _DIGITS) for number, side in zip(percent, (width, height) * 2, strict=True)]


FORMAT = Format(
    name="label_studio",
    description="Label Studio JSON: polygons, rectangles, ellipses and brush strokes",
    read=read_label_studio,
    options=(
        Option("json", "the export", "file", required=True),
        Option("images", "the images", "folder", required=True),
        Option("rectangles", '"boxes", or "masks" to read rectangles as masks', "text"),
        Option("predictions", "whether tasks without annotation have the objects of their prediction", "switch"),
    ),
    shorthand=("json", "images"),
    lists_faults=True,
)
