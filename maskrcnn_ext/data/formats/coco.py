"""COCO JSON (cocodataset.org/#format-data): instances, keypoints, crowds; polygons and both kinds of RLE; any ids, also from 0.

This is the only reader of COCO JSON. Its policy is strict: the first fault is an InputError that names file, record and field. Training
uses all of it (:func:`read_coco`), the evaluation the parsers of records (:mod:`.coco_records`, :mod:`.coco_annotations`) for ground truth,
which needs neither image files nor annotation ids.
``check-data`` uses :func:`load_coco` and the same readers of fields (:mod:`maskrcnn_ext.data.formats.coco_fields`), and collects all
faults of the records, see :mod:`maskrcnn_ext.data.check.view`.

:func:`read_coco` returns what ``detectron2.data.datasets.load_coco_json`` returns, in the same order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from json import loads
from pathlib import Path, PureWindowsPath
from typing import Any

from maskrcnn_ext.common.encodings import decode
from maskrcnn_ext.common.gc_pause import gc_paused
from maskrcnn_ext.common.text import did_you_mean, or_list, plural
from maskrcnn_ext.data.formats import Format, Option, cache
from maskrcnn_ext.data.formats.coco_annotations import add_annotations
from maskrcnn_ext.data.formats.coco_fields import read_rotated_box
from maskrcnn_ext.data.formats.coco_records import (
    add_labelled_classes,
    keypoint_names,
    parse_categories,
    parse_images,
    parse_skeleton,
    placeholder_class,
)
from maskrcnn_ext.data.formats.file_names import check_different
from maskrcnn_ext.data.formats.image_folder import ImageFolder
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.formats.warnings import ROTATED
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

CROWDS = ("ignore", "objects")


def read_coco(
    json: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    crowds: str = "ignore",
) -> DataSet:
    """Reads a COCO annotation file. A large one is cached (:mod:`maskrcnn_ext.data.formats.cache`).

    Args:
        json: the annotations.
        images: the folder that the images' ``file_name`` is relative to.
        classes: class names that the file must have, in the order of its category ids; not checked if None.
        only: the classes to read, in this order; objects of other classes are left out. None for all.
        crowds: "ignore" if objects with ``iscrowd`` are neither trained on nor counted as missed; "objects" to read them as objects.

    Returns:
        One record per image, in the order of their ids. Keypoints are shifted by half a pixel, from COCO's pixel indices to sub-pixel
        coordinates, as in Detectron2. Annotations whose outline has no area are left out, with one warning for all. An image with
        ``labelled_category_ids`` labels these categories only. ``point_coords`` and ``point_labels`` of Detectron2's projects/PointSup
        become points.

    Raises:
        InputError: the JSON is broken, a record lacks a field or refers to a missing record, an id is used twice, a file name leads out
            of `images`, the classes differ, or `only` names a class that the file does not have.
    """
    if crowds not in CROWDS:
        raise InputError(f"{json}: `crowds` is {crowds!r}, expected {or_list(CROWDS)}")
    content = _read_bytes(json)
    key = cache.key_of(content, str(images)) if len(content) >= cache.MIN_BYTES else None
    with gc_paused():
        found = cache.load(key) if key else None
        data, notes = found or _parse(content, json, images)
        if key and found is None:
            cache.store(key, data, notes)
    without_area, num_rotated, placeholder = notes
    _find_images(data.images, images, json)
    if classes and list(classes) != data.classes:
        raise InputError(f"`classes` are {', '.join(classes)}, but {json} has {', '.join(data.classes)}")
    warn_without_area(without_area, json)
    has_keypoints = any(any(found.keypoints or ()) for record in data.images for found in record.annotations)
    if has_keypoints and not data.keypoints:
        logger.warning("%s: objects have keypoints, which no category names by `keypoints`: they are left out", json)
    if num_rotated:
        logger.warning("%s: %s", json, plural(num_rotated, *ROTATED))
    if placeholder and only is None:
        others = ",".join(name for name in data.classes if name != placeholder)
        logger.warning(
            "%s: class %r has no object and is the supercategory of all others, as Roboflow writes it; add @only:%s to the string of the "
            "data set to read the others alone",
            json,
            placeholder,
            others,
        )
    if crowds == "objects":
        for annotation in (annotation for record in data.images for annotation in record.annotations):
            annotation.crowd = False
    return data if only is None else _select_classes(data, list(only), json)


def _find_images(records: Sequence[ImageRecord], images: Path, source: Path) -> None:
    """Sets the files of images that are missing, if the folder has them under similar names that no other record has."""
    folder = ImageFolder(images)
    missing = [record for record in records if not folder.has(record.file_name)]
    if not missing:
        return
    taken = {record.file_name for record in records}
    names = [os.path.relpath(record.file_name, images) for record in missing]
    found = [folder.find(PureWindowsPath(name)) for name in names]
    moved = [
        (record, name, str(file))
        for record, name, file in zip(missing, names, found, strict=True)
        if file and str(file) not in taken
    ]
    for record, _, file in moved:
        record.file_name = file
    if moved:
        check_different((record.file_name for record in records), f"{source}: images found under similar names")
        _, name, file = moved[0]
        count = plural(len(moved), "image is", "images are")
        logger.warning("%s: %s missing and found under a similar name, such as %s: %s", source, count, name, file)


def check_classes(only: Sequence[str], classes: Sequence[str], source: Path | str) -> None:
    """Checks the classes of the option ``only``.

    Raises:
        InputError: one is not among the classes of the file, or is named twice.
    """
    for index, name in enumerate(only):
        if name not in classes:
            advice = did_you_mean(name, classes) or f"it has {', '.join(classes)}"
            raise InputError(f"{source}: `only` names the class {name!r}: {advice}")
        if name in only[:index]:
            raise InputError(f"{source}: `only` names the class {name!r} twice")


def _select_classes(data: DataSet, only: list[str], json: Path) -> DataSet:
    """Returns the data with these classes, in this order, and without the objects of others."""
    check_classes(only, data.classes, json)
    indices = [data.classes.index(name) for name in only]
    index_of = {old: new for new, old in enumerate(indices)}
    for record in data.images:
        record.annotations = [each for each in record.annotations if each.category in index_of]
        for annotation in record.annotations:
            annotation.category = index_of[annotation.category]
        if record.labelled_classes is not None:
            record.labelled_classes = [index_of[index] for index in record.labelled_classes if index in index_of]
    ids = data.category_ids or []
    return replace(data, classes=only, category_ids=[ids[index] for index in indices])


def load_coco(json: Path) -> dict[str, Any]:
    """Reads a COCO file as it is: a mapping with the lists ``images``, ``annotations`` and ``categories``, their records unchecked.

    Raises:
        InputError: the file cannot be read, is not JSON, or lacks a list. Only ``annotations`` may be missing; it becomes empty.
    """
    with gc_paused():
        return check_lists(_parse_json(_read_bytes(json), json), json)


def check_lists(content: Any, source: Path | str) -> dict[str, Any]:
    """Returns the content of a COCO file with all of its three lists.

    Args:
        content: expected to be a mapping.
        source: the file, or a name; it begins the error message.

    Raises:
        InputError: a list is missing.
    """
    if not isinstance(content, Mapping) or not all(
        isinstance(content.get(key), list) for key in ("images", "categories")
    ):
        raise InputError(
            f"{source}: not a COCO annotation file (expected a mapping with the lists `images`, `annotations`, `categories`); "
            "name another format in front of the file, such as via:FILE@IMAGES"
        )
    annotations = content.get("annotations", [])  # a file of images to predict has none
    if not isinstance(annotations, list):
        raise InputError(f"{source}: `annotations` is a {type(annotations).__name__}, expected a list")
    return {**content, "annotations": annotations}


def warn_without_area(ids: Sequence[Any], source: Path | str) -> None:
    """Logs that annotations have been left out, if any."""
    if ids:
        count = plural(len(ids), "annotation")
        logger.warning("%s: left out %s whose outline has no area, such as id %s", source, count, ids[0])


def _read_bytes(json: Path) -> bytes:
    try:
        return json.read_bytes()
    except OSError as error:
        raise InputError(f"{json}: cannot be read ({error.strerror})") from error


def _parse_json(content: bytes, json: Path) -> Any:
    text = decode(content, json)
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{json}: not a JSON file ({error})") from error


def _parse(content: bytes, json: Path, images: Path) -> tuple[DataSet, tuple[list[int | str], int, str]]:
    """Returns the data set, the ids of the annotations that are left out, the number of rotated boxes, and the name of a placeholder class.

    A placeholder has no object and is the supercategory of all other classes; "" without one.
    """
    data = check_lists(_parse_json(content, json), json)
    categories = parse_categories(data["categories"], json)
    with_keypoints: dict[str, Any] = next((category for category in categories if category.get("keypoints")), {})
    try:
        skeleton = parse_skeleton(with_keypoints)
    except InputError as error:
        raise InputError(f"{json}: category {with_keypoints['id']!r} {error}") from None
    records = parse_images(data["images"], json, images)
    add_labelled_classes(data["images"], records, categories, json)
    annotations = data["annotations"]
    parsed = add_annotations(annotations, records, categories, json)
    without_area = [annotations[index]["id"] for index, added in enumerate(parsed) if added is None]
    names = [category["name"] for category in categories]
    ids = [category["id"] for category in categories]
    num_rotated = sum(
        read_rotated_box(entry) is not None
        for entry in annotations
        if "attributes" in entry or len(entry["bbox"]) == 5  # all others are upright
    )
    data_set = DataSet(names, list(records.values()), ids, keypoint_names(categories), skeleton)
    used = {annotation.category for record in data_set.images for annotation in record.annotations}
    placeholder = placeholder_class(categories, lambda category: categories.index(category) in used)
    return data_set, (without_area, num_rotated, placeholder)


FORMAT = Format(
    name="coco",
    description="COCO JSON: instances, keypoints and crowds",
    read=read_coco,
    options=(
        Option("json", "the annotation file", "file", required=True),
        Option("images", "the folder that every file_name is relative to", "folder", required=True),
        Option("only", "the classes to read, in this order", "texts"),
        Option("crowds", '"ignore", or "objects" to read objects with `iscrowd` as objects', "text"),
    ),
    shorthand=("json", "images"),
    crowd_option="crowds:objects",
)
