"""CVAT for images 1.1 (docs.cvat.ai, formats): one XML for all images of a task, ``<annotations><image><polygon/>``.

Polygons, ellipses and masks of one label and ``group_id`` are parts of one object, as in CVAT's own export to COCO. Tracks of CVAT for
video are not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import clip_box, finite
from maskrcnn_ext.data.formats.drawn_objects import IGNORE_LABEL, DrawnPart, add_object, join_parts
from maskrcnn_ext.data.formats.file_names import check_different, path_below
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.polygons import ellipse, rotated_box
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_xml
from maskrcnn_ext.data.formats.warnings import Tally, check_rectangles
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.tool_rle import decode_rows

_OPEN_SHAPES = ("polyline", "points", "cuboid", "skeleton")
_SHAPES = ("box", "polygon", "ellipse", "mask", *_OPEN_SHAPES)
# The attribute that CVAT's own COCO import and export use for crowds.
CROWD_ATTRIBUTE = "is_crowd"
_FRAME_SUFFIX = ".PNG"  # of the frames of a video, whose names have none


def read_cvat(
    xml: Path,
    images: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    subset: str | None = None,
    rectangles: str = "boxes",
    faults: list[str] | None = None,
) -> DataSet:
    """Reads a file of CVAT for images 1.1.

    Args:
        xml: the annotations.
        images: the folder that the names of the images are relative to. If None, ``images`` beside the file, or else its own folder.
        classes: class names. If None, the labels of the task in their order, and then other labels, sorted. A shape labelled
            ``__ignore__`` is a crowd of each class.
        subset: the subset of a project to read, such as "Train"; None for all.
        rectangles: "boxes" if a drawn box is an object without a mask; "masks" if it is the mask of its object.
        faults: gets the faults of images and shapes, which are left out; None to raise the first.

    Returns:
        One record per image, in the order of the file; its id is its name, after the subset if it has one. Rotated boxes become polygons.
        Polylines, points, cuboids and skeletons are left out. Warnings count both. A shape whose attribute ``is_crowd`` is true is a crowd.

    Raises:
        InputError: the XML is broken or of another format, an image is missing, occurs twice or has another size than stated, or a shape is
            broken.
    """
    check_rectangles(rectangles, xml)
    tree = read_xml(xml)
    if tree.tag != "annotations":
        raise InputError(f"{xml}: not a file of CVAT for images (expected <annotations>, found <{tree.tag}>)")
    if tree.find("track") is not None:
        raise InputError(f"{xml}: these are tracks of CVAT for video: export the task as CVAT for images 1.1")
    if images is None:
        images = xml.parent / "images" if (xml.parent / "images").is_dir() else xml.parent
    folder = images
    elements = tree.findall("image")
    if subset is not None:
        names_of = _subsets(elements)
        elements = [element for element in elements if element.get("subset") == subset]
        if not elements:
            raise InputError(f"{xml}: no subset {subset!r}, it has {', '.join(names_of) or 'none'}")
    check_different(map(_image_id, elements), f"{xml}: image")
    if not classes:
        listed = list(dict.fromkeys(_task_labels(tree)))
        used = {shape.get("label", "") for image in elements for shape in image if shape.tag in _SHAPES}
        classes = [*listed, *sorted(used - {"", IGNORE_LABEL, *listed})]
    names = list(classes)
    tally = Tally()

    def read(element: ElementTree.Element) -> ImageRecord:
        return _record(element, xml, folder, names, rectangles, tally, faults)

    records = in_threads(read, elements, faults)
    tally.warn(xml)
    return DataSet(names, records)


def list_subsets(xml: Path) -> list[str]:
    """Returns the names of the subsets of a file."""
    return _subsets(read_xml(xml).findall("image"))


def _subsets(elements: Sequence[ElementTree.Element]) -> list[str]:
    return list(dict.fromkeys(subset for element in elements if (subset := element.get("subset"))))


def _task_labels(tree: ElementTree.Element) -> list[str]:
    """Returns the labels of the task, without those of the parts of skeletons."""
    labels = [label for meta in tree.iter("meta") for label in meta.iter("label") if label.find("parent") is None]
    return [name for label in labels if (name := label.findtext("name") or "").strip() not in ("", IGNORE_LABEL)]


def _image_id(element: ElementTree.Element) -> str:
    """Returns the name of an image; in the export of a project, below the subset of its task."""
    name, subset = element.get("name", ""), element.get("subset")
    return f"{subset}/{name}" if subset else name


def _find_image(folder: Path, element: ElementTree.Element, where: str) -> Path:
    """Returns the file of an image. CVAT writes those of a project into a folder a subset, and frames of a video with a suffix."""
    name = element.get("name")
    path = path_below(folder, name, where)
    nested = path_below(folder, _image_id(element), where)
    candidates = (nested, path, Path(f"{nested}{_FRAME_SUFFIX}"), Path(f"{path}{_FRAME_SUFFIX}"))
    return next((file for file in candidates if file.is_file()), path)


def _record(
    element: ElementTree.Element,
    xml: Path,
    folder: Path,
    classes: Sequence[str],
    rectangles: str,
    tally: Tally,
    faults: list[str] | None,
) -> ImageRecord:
    where = f"{xml}: image {element.get('name')!r}"
    file = _find_image(folder, element, where)
    height, width = image_size(file, where)
    for side, pixels in (("width", width), ("height", height)):
        stated = finite([element.get(side, pixels)], f"{where}, `{side}`")[0]
        if stated != pixels:
            raise InputError(f"{where}: `{side}` is {stated:g}, but {file} is {width} x {height} (width, height)")
    record = ImageRecord(str(file), _image_id(element), height, width)
    objects: dict[tuple[str, str, str | int, bool], list[DrawnPart]] = {}
    for number, shape in enumerate(element):
        if shape.tag not in _SHAPES:
            continue  # tags of whole images
        place = f"{where}, shape {number} ({shape.tag})"
        if shape.tag in _OPEN_SHAPES:
            tally.open_shapes.append(f"a {shape.tag}, {place}")
            continue
        with collected(faults):
            label = shape.get("label")
            if not label:
                raise InputError(f"{place} has no `label`")
            is_crowd = any(
                each.get("name") == CROWD_ATTRIBUTE and (each.text or "").strip().lower() == "true"
                for each in shape.iter("attribute")
            )
            if shape.tag == "box" and rectangles == "boxes" and not _rotation(shape, place) and label != IGNORE_LABEL:
                box = clip_box(
                    _numbers(shape, ("xtl", "ytl", "xbr", "ybr"), place), height, width, place, tally.clipped
                )
                add_object(record, Annotation(0, box, crowd=is_crowd), label, classes, place)
                continue
            group = shape.get("group_id") or "0"
            key: tuple[str, str, str | int, bool] = (label, "group", group, is_crowd)
            if group == "0" or shape.tag == "box":
                key = (label, "shape", number, is_crowd)
            part = _part(shape, record, place, tally)
            objects.setdefault(key, []).append(part)
    for (label, _, _, is_crowd), parts in objects.items():
        with collected(faults):
            annotation = join_parts(parts, height, width)
            annotation.crowd = is_crowd
            add_object(record, annotation, label, classes, parts[0].where)
    return record


def _part(shape: ElementTree.Element, record: ImageRecord, where: str, tally: Tally) -> DrawnPart:
    if shape.tag == "mask":
        return _patch(shape, record, where)
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        if len(pairs) < 3 or not all(len(pair) == 2 for pair in pairs):
            raise InputError(f"{where}: `points` are not three or more x,y; x,y; ...")
        return DrawnPart(where, finite((value for pair in pairs for value in pair), f"{where}, `points`"))
    rotation = _rotation(shape, where)
    if shape.tag == "ellipse":
        cx, cy, rx, ry = _numbers(shape, ("cx", "cy", "rx", "ry"), where)
        turned = ellipse(cx, cy, rx, ry, math.radians(rotation))
        return DrawnPart(where, [value for point in turned for value in point])
    x0, y0, x1, y1 = _numbers(shape, ("xtl", "ytl", "xbr", "ybr"), where)
    if rotation:
        tally.rotated.append(where)
    return DrawnPart(where, rotated_box((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, rotation))


def _patch(shape: ElementTree.Element, record: ImageRecord, where: str) -> DrawnPart:
    left, top, width, height = _integers([shape.get(key) for key in ("left", "top", "width", "height")], where)
    if left + width > record.width or top + height > record.height:
        raise InputError(f"{where}: extends beyond its image of {record.width} x {record.height} (width, height)")
    counts = _integers(shape.get("rle", "").split(","), f"{where}, `rle`")
    try:
        return DrawnPart(where, [], decode_rows(counts, height, width), (left, top))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _numbers(shape: ElementTree.Element, keys: Sequence[str], where: str) -> list[float]:
    return finite((shape.get(key) for key in keys), f"{where}, `{'`, `'.join(keys)}`")


def _integers(texts: Sequence[str | None], where: str) -> list[int]:
    numbers = finite(texts, where)
    if not all(number.is_integer() and number >= 0 for number in numbers):
        raise InputError(f"{where}: expected whole numbers of at least 0, found {texts!r:.100}")
    return [int(number) for number in numbers]


def _rotation(shape: ElementTree.Element, where: str) -> float:
    return finite([shape.get("rotation") or 0.0], f"{where}, `rotation`")[0]


FORMAT = Format(
    name="cvat",
    description="CVAT for images 1.1, one XML for a task",
    read=read_cvat,
    options=(
        Option("xml", "the annotations", "file", required=True),
        Option("images", "the images, if they are neither in `images` beside the file nor beside it", "folder"),
        Option("subset", "which subset of a project", "text"),
        Option("rectangles", '"boxes", or "masks" to read drawn boxes as masks', "text"),
    ),
    shorthand=("xml", "images"),
    split_option="subset",
    list_splits=list_subsets,
    lists_faults=True,
)
