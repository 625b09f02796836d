"""BDD100K instance segmentation (doc.bdd100k.com/format.html): bitmask PNGs, or JSON in Scalabel's format (doc.scalabel.ai/format.html).

Its evaluation reads bitmasks, in which no two objects overlap: R is the category from 1, the four low bits of G are truncated,
occluded, crowd and ignore, and ``(B << 8) + A`` is the object's number. In JSON an outline is ``{"vertices", "types", "closed"}``: the
type L is a corner, and C a control point of a cubic Bezier curve; a curve takes two of them and the vertex after.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import checked_rle, clip_box, finite
from maskrcnn_ext.data.formats.file_names import list_files, path_below
from maskrcnn_ext.data.formats.image_files import image_size, read_pixels
from maskrcnn_ext.data.formats.polygons import bezier, box_of_polygons, check_outline
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_json
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_labels

logger = logging.getLogger(__name__)

# In the order of the bitmasks' categories, from 1.
_CLASSES = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
# Names in earlier releases, and classes that its evaluation ignores like crowds of another class.
_ALIASES = {"person": "pedestrian", "bike": "bicycle", "motor": "motorcycle", "caravan": "car", "van": "car"}
_IGNORED = {"other person": "pedestrian", "other vehicle": "car", "trailer": "truck"}


def read_bdd100k(
    annotations: Path, images: Path, *, classes: Sequence[str] | None = None, faults: list[str] | None = None
) -> DataSet:
    """Reads BDD100K.

    Args:
        annotations: a JSON file, or a folder of bitmask PNGs (with sub-folders a video, for segmentation tracking).
        images: the folder of the images, with the same sub-folders.
        classes: which of the eight classes, in the order of the model; all when not given.
        faults: gets the faults of frames and labels, which are left out; None to raise the first.

    Returns:
        One record per frame or bitmask; ids are names without suffix. Objects marked crowd or ignore(d) are crowds. From JSON, an object
        with an RLE or outlines has the box of these, any other its ``box2d`` and no segmentation; labels of other classes, such as
        lanes, are left out, with one warning for all.

    Raises:
        InputError: broken JSON or PNG, a missing or unreadable image, one of another size, or a label that encloses no area.
    """
    names = list(classes or _CLASSES)
    unknown = [name for name in names if name not in _CLASSES]
    if unknown:
        raise InputError(f"{annotations}: class {unknown[0]!r}, expected some of {', '.join(_CLASSES)}")
    if not annotations.is_dir():
        return DataSet(names, _read_frames(annotations, images, names, faults))
    files = list_files(annotations, "**/*.png")
    if not files:
        raise InputError(f"{annotations}: no bitmask PNGs here")
    return DataSet(names, in_threads(lambda file: _read_bitmask(file, annotations, images, names), files, faults))


def _read_bitmask(file: Path, folder: Path, images: Path, names: list[str]) -> ImageRecord:
    name = file.relative_to(folder).with_suffix("")
    image = images / name.with_suffix(".jpg")
    height, width = image_size(image, str(file))
    bitmask = read_pixels(file)
    if bitmask.shape != (height, width, 4):
        raise InputError(f"{file}: bitmask is {bitmask.shape}, expected ({height}, {width}, 4) for {image}")
    # One number per pixel, R first. If R is 0 there is no object, regardless of the other channels.
    numbers = bitmask.astype(np.int64) @ (1 << np.array([24, 16, 8, 0]))
    record = ImageRecord(str(image), name.as_posix(), height, width)
    seen: set[int] = set()
    for value, box, rle in encode_labels(np.where(bitmask[..., 0] > 0, numbers, 0)):
        category, attributes, number = value >> 24, value >> 16 & 255, value & 0xFFFF
        if number in seen:
            raise InputError(f"{file}: object {number} has more than one category (R) or set of attributes (G)")
        seen.add(number)
        if category > len(_CLASSES):
            raise InputError(f"{file}: object {number} is of category {category}, expected 1 to {len(_CLASSES)}")
        if _CLASSES[category - 1] in names:
            index = names.index(_CLASSES[category - 1])
            record.annotations.append(Annotation(index, box, rle, crowd=attributes & 0b11 > 0, id=number))
    return record


def _read_frames(file: Path, images: Path, names: list[str], faults: list[str] | None) -> list[ImageRecord]:
    frames = read_json(file)
    if isinstance(frames, dict):
        frames = frames.get("frames")  # Scalabel's file with a config
    if not isinstance(frames, list) or not all(isinstance(frame, dict) and frame.get("name") for frame in frames):
        raise InputError(f"{file}: not a BDD100K file (expected a list of frames with `name` and `labels`)")
    others: Counter[str] = Counter()
    records: dict[str, ImageRecord] = {}

    def find(frame: dict[str, Any]) -> tuple[dict[str, Any], Path, int, int]:
        where = f"{file}: frame {frame['name']!r:.100}"
        folder = path_below(images, frame["videoName"], where) if frame.get("videoName") else images
        path = path_below(folder, frame["name"], where)
        # The archives of the tracking sets have a folder a video, and others name it but have none.
        path = path if path.is_file() else path_below(images, frame["name"], where)
        return frame, path, *image_size(path, f"{file}: frame {path.name!r}")

    for frame, path, height, width in in_threads(find, frames, faults):
        where = f"{file}: frame {frame['name']!r}"
        with collected(faults):
            size = _field(frame, "size", dict, where)
            if (size.get("height", height), size.get("width", width)) != (height, width):
                raise InputError(f"{where}: `size` is {size}, but {path} is {width} x {height} (width, height)")
            image_id = path.relative_to(images).with_suffix("").as_posix()
            if image_id in records:
                raise InputError(f"{where}: the frame occurs twice")
            record = records[image_id] = ImageRecord(str(path), image_id, height, width)
            for number, label in enumerate(_field(frame, "labels", list, where)):
                label_where = f"{where}, label {number}"
                with collected(faults):
                    if not isinstance(label, dict) or not isinstance(label.get("category"), str):
                        raise InputError(f"{label_where} has no `category`")
                    category = str(label["category"])
                    name = {**_ALIASES, **_IGNORED}.get(category, category)
                    if name in names:
                        record.annotations.append(_annotation(label, names.index(name), height, width, label_where))
                    elif name not in _CLASSES:
                        others[name] += 1
    if others:
        counts = ", ".join(f"{count} {name}" for name, count in others.most_common())
        logger.warning("%s: left out labels of classes without instances: %s", file, counts)
    return list(records.values())


def _annotation(label: dict[str, Any], category: int, height: int, width: int, where: str) -> Annotation:
    attributes = _field(label, "attributes", dict, where)
    crowd = label["category"] in _IGNORED or any(attributes.get(key) for key in ("crowd", "ignored", "ignore"))
    rest: dict[str, Any] = {"crowd": crowd, "id": label.get("id")}
    if rle := _field(label, "rle", dict, where):
        return Annotation(category, *checked_rle(rle, height, width, where), **rest)
    if outlines := _field(label, "poly2d", list, where):
        polygons = []
        for number, outline in enumerate(outlines):
            polygons.append(_polygon(outline, f"{where}, poly2d {number}"))
            check_outline(polygons[-1], height, width, f"{where}, poly2d {number}")
        return Annotation(category, box_of_polygons(polygons, height, width), polygons, **rest)
    box = _field(label, "box2d", dict, where)
    if not box:
        raise InputError(f"{where} has no `poly2d`, `rle` or `box2d`")
    x0, y0, x1, y1 = finite((box.get(key) for key in ("x1", "y1", "x2", "y2")), f"{where}, `box2d`")
    return Annotation(category, clip_box((x0, y0, x1 + 1, y1 + 1), height, width, where), **rest)  # x2, y2 are inside


def _field(record: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """Returns a field of the given type; an empty value if it is missing or null."""
    value = record.get(name)
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{where}: `{name}` is {value!r:.100}, expected a {kind.__name__}")
    return kind() if value is None else value


def _polygon(outline: Any, where: str) -> list[float]:
    """Returns [x, y, x, y, ...] of an outline, curves as lines."""
    vertices = outline.get("vertices") if isinstance(outline, dict) else None
    if not isinstance(vertices, list) or not all(isinstance(vertex, list) and len(vertex) == 2 for vertex in vertices):
        raise InputError(f"{where}: expected `vertices`, a list of [x, y], and `types`")
    points = np.array(finite((value for vertex in vertices for value in vertex), where)).reshape(-1, 2)
    types = str(outline.get("types", "L" * len(points)))
    if len(types) != len(points) or set(types) - set("LC") or len(points) < 3:
        raise InputError(f"{where}: {len(points)} vertices of types {types!r}, expected 3 or more, an L or C for each")
    if not outline.get("closed", True):
        raise InputError(f"{where}: an open line encloses no area")
    lines, index = [points[:1]], 1
    while index < len(points):
        if types[index] == "L":
            lines.append(points[index : index + 1])
            index += 1
            continue
        if types[index : index + 2] != "CC":
            raise InputError(f"{where}: vertex {index} is a lone control point in types {types!r}, a curve needs two")
        ends = points[[index - 1, index, index + 1, (index + 2) % len(points)]]
        lines.append(bezier(ends))
        index += 3
    return np.concatenate(lines).ravel().tolist()


FORMAT = Format(
    name="bdd100k",
    description="BDD100K: a JSON of labels, or bitmask PNGs",
    read=read_bdd100k,
    options=(
        Option("annotations", "the JSON file, or the folder of bitmask PNGs", "path", required=True),
        Option("images", "the images, in the same sub-folders as the bitmasks", "folder", required=True),
    ),
    shorthand=("annotations", "images"),
    lists_faults=True,
)
