"""Parses the categories and images of COCO JSON. The first fault is an InputError that names file and record.

A ``file_name`` that leads out of the image folder is that of another machine: its last parts name a file in the folder, or it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.formats.coco_fields import ById, read_side
from maskrcnn_ext.data.formats.file_names import path_below
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.errors import InputError


def parse_categories(records: list[Any], source: Path | str) -> list[dict[str, Any]]:
    """Returns the categories in the order of their ids.

    Raises:
        InputError: a category lacks an id or a name, two have the same id, or its keypoints are not a list of names.
    """
    categories = _sort_by_id(records, source, "category", "categories")
    for category in categories:
        where = f"{source}: category {category['id']!r}"
        name = _field(category, "name", source, "category")
        if not isinstance(name, str):
            raise InputError(f"{where}: `name` is {name!r:.100}, expected a text")
        try:
            parse_keypoint_names(category)
        except InputError as error:
            raise InputError(f"{where} {error}") from None
    return categories


def placeholder_class(categories: list[dict[str, Any]], has_objects: Callable[[dict[str, Any]], bool]) -> str:
    """Returns the name of a class without objects that is the supercategory of all others, as Roboflow writes it; "" without one.

    Args:
        categories: the records.
        has_objects: returns whether a category has objects.
    """
    for category in categories if len(categories) > 1 else []:
        others = [other.get("supercategory") for other in categories if other is not category]
        name = category.get("name")
        if name and not has_objects(category) and all(other == name for other in others):
            return str(name)
    return ""


def keypoint_names(categories: list[dict[str, Any]]) -> list[str]:
    """Returns the names of the keypoints; Detectron2 and the evaluation know one skeleton per dataset, that of the first category."""
    return next(filter(None, map(parse_keypoint_names, categories)), [])


def parse_keypoint_names(category: dict[str, Any]) -> list[str]:
    """Returns the names of a category's keypoints; raises InputError without the place if they are broken."""
    names = category.get("keypoints") or []
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise InputError(f"has the `keypoints` {names!r:.100}, expected a list of names")
    return [str(name) for name in names]


def parse_skeleton(category: dict[str, Any]) -> list[tuple[int, int]]:
    """Returns the pairs of keypoint indices that are joined by lines; raises InputError without the place if they are broken."""
    try:
        return [(a - 1, b - 1) for a, b in category.get("skeleton") or []]
    except (TypeError, ValueError):
        raise InputError("has a `skeleton` that is not a list of pairs of numbers") from None


def parse_labelled_classes(image: dict[str, Any], index_of: ById[int]) -> list[int] | None:
    """Returns the classes that an image labels, None for all; raises InputError without the place if they are broken.

    Args:
        image: a record of the file.
        index_of: index of each category by id.
    """
    ids = image.get("labelled_category_ids")
    if ids is None:
        return None
    try:
        if isinstance(ids, str):
            raise TypeError
        classes = sorted({index_of[category_id] for category_id in ids})
    except (KeyError, TypeError):
        raise InputError(
            f"has the `labelled_category_ids` {ids!r:.100}, expected a list of ids of `categories`"
        ) from None
    return classes if len(classes) < len(index_of) else None


def parse_images(records: list[Any], source: Path | str, images: Path | None = None) -> ById[ImageRecord]:
    """Returns a record without annotations for each image, by id and in the order of the ids.

    Args:
        records: of the file.
        source: the file, or a name; it begins the error message.
        images: the folder of the images. If None, file names are neither needed nor checked.

    Raises:
        InputError: an image lacks an id, a file name or a size, or two have the same id.
    """
    return ById(
        (image["id"], _image(image, images, source)) for image in _sort_by_id(records, source, "image", "images")
    )


def add_labelled_classes(
    images: list[Any], records: ById[ImageRecord], categories: list[dict[str, Any]], source: Path | str
) -> None:
    """Adds the classes that an image labels, if its ``labelled_category_ids`` are not all of them.

    Args:
        images: records of the file.
        records: see :func:`parse_images`; changed in place.
        categories: see :func:`parse_categories`.
        source: the file, or a name; it begins the error message.

    Raises:
        InputError: ``labelled_category_ids`` is not a list of ids of categories.
    """
    index_of = ById((category["id"], index) for index, category in enumerate(categories))
    for image in images:
        try:
            records[image["id"]].labelled_classes = parse_labelled_classes(image, index_of)
        except InputError as error:
            raise InputError(f"{source}: image {image['id']!r} {error}") from None


def _field(record: Any, name: str, source: Path | str, kind: str) -> Any:
    """Returns a field that a record must have."""
    try:
        return record[name]
    except (KeyError, TypeError):
        where = f" {record['id']!r}" if isinstance(record, dict) and "id" in record else ""
        raise InputError(f"{source}: {kind}{where} has no `{name}`") from None


def _id(record: Any, source: Path | str, kind: str) -> int | float | str:
    found = _field(record, "id", source, kind)
    if not isinstance(found, int | float | str):
        raise InputError(f"{source}: {kind} has the `id` {found!r:.100}, expected a number or a text")
    return found


def _sort_by_id(records: list[Any], source: Path | str, kind: str, plural: str) -> list[dict[str, Any]]:
    """Returns records in the order of their ids, which must be of one type and differ."""
    try:
        ordered = sorted(records, key=lambda record: _id(record, source, kind))
    except TypeError:
        raise InputError(
            f"{source}: the ids of `{plural}` are of different types; use only numbers or only texts"
        ) from None
    for one, other in pairwise(ordered):
        if one["id"] == other["id"]:
            raise InputError(f"{source}: two {plural} have the id {one['id']!r}")
    return ordered


def _image(image: dict[str, Any], images: Path | None, source: Path | str) -> ImageRecord:
    """Returns the record of an image, without annotations."""
    height: Any = image.get("height")
    width: Any = image.get("width")
    file = str(image.get("file_name", ""))
    if images is not None:
        name = _field(image, "file_name", source, "image")
        if not isinstance(name, str) or not name:
            raise InputError(f"{source}: image {image['id']!r}: `file_name` is {name!r}, expected a path")
        if "\\" in name:
            name = name.replace("\\", "/")  # written on Windows
        file = os.path.join(images, name)  # noqa: PTH118, faster than pathlib
        if name.startswith("/") or ".." in name.split("/") or name[1:3] == ":/":  # a path of another machine
            file = str(path_below(images, name, f"{source}: image {image['id']!r}"))
        if height is None and width is None:  # some tools write neither
            height, width = image_size(Path(file), f"{source}: image {image['id']!r} has no `height` and `width`")
    return ImageRecord(file, image["id"], _side("height", height, image, source), _side("width", width, image, source))


def _side(name: str, value: Any, image: dict[str, Any], source: Path | str) -> int:
    side = read_side(value)
    if side is None:
        raise InputError(
            f"{source}: image {image['id']!r}: `{name}` is {value!r}, expected a whole number of pixels above 0"
        )
    return side
