"""COCO JSON (cocodataset.org/#format-data): instances, keypoints, crowds; polygons and both kinds of RLE; any ids, also from 0.

What it reads is what ``detectron2.data.datasets.load_coco_json`` reads, in the same order. Annotations take a fast path without a check
of their own each; where one fails, :func:`_fault` looks for what is wrong with it.

A ``file_name`` that leads out of the image folder is refused: annotation files come from elsewhere.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from json import loads
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.gc_pause import gc_paused
from maskrcnn_ext.data.formats import Format, Option, cache
from maskrcnn_ext.data.formats.reading import check_outline, image_size
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import check_rle, find_broken_rle, with_text_counts

logger = logging.getLogger(__name__)

# Sums of coordinates that are looked at closely: what is smaller takes pycocotools no memory worth the name.
_LARGE = 1e7


def read_coco(json: Path, images: Path, *, classes: Sequence[str] | None = None) -> DataSet:
    """Reads a COCO annotation file. A large one is cached (:mod:`maskrcnn_ext.data.formats.cache`).

    Args:
        json: the annotations.
        images: the folder that the images' ``file_name`` is relative to.
        classes: the class names that the file must have, in the order of its category ids; checked when given.

    Returns:
        A record an image, in the order of their ids. Keypoints are moved by half a pixel, from COCO's pixel indices to sub-pixel
        coordinates, as Detectron2 does. An annotation whose outline has no area is left out, with one warning for all.

    Raises:
        InputError: broken JSON, a record that lacks a field or points nowhere, a double id, a file name outside of ``images``, or
            other classes.
    """
    try:
        content = json.read_bytes()
    except OSError as error:
        raise InputError(f"{json}: cannot be read ({error.strerror})") from error
    key = cache.key_of(content, str(images)) if len(content) >= cache.MIN_BYTES else None
    with gc_paused():
        found = cache.load(key) if key else None
        data, without_area = found or _parse(content, json, images)
        if key and found is None:
            cache.store(key, data, without_area)
    if classes and list(classes) != data.classes:
        raise InputError(f"`classes` are {', '.join(classes)}, but {json} has {', '.join(data.classes)}")
    if without_area:
        logger.warning(
            "%s: left out %d annotations whose outline has no area, such as id %s",
            json,
            len(without_area),
            without_area[0],
        )
    return data


def _parse(content: bytes, json: Path, images: Path) -> tuple[DataSet, list[int | str]]:
    """Returns the data and the ids of the annotations that were left out."""
    try:
        data = loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{json}: not a JSON file ({error})") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "categories")):
        raise InputError(
            f"{json}: not a COCO annotation file (expected a mapping with `images`, `annotations`, `categories`)"
        )
    annotations = data.get("annotations", [])
    if not isinstance(annotations, list):
        raise InputError(f"{json}: `annotations` is a {type(annotations).__name__}, expected a list")
    categories = _by_id(data["categories"], json, "category", "categories")
    names = [_field(category, "name", json, "category") for category in categories]
    for category, name in zip(categories, names, strict=True):
        if not isinstance(name, str):
            raise InputError(f"{json}: category {category['id']!r}: `name` is {name!r:.100}, expected a text")
    # The evaluator and Detectron2 know one skeleton a data set.
    of_keypoints: dict[str, Any] = next((category for category in categories if category.get("keypoints")), {})
    keypoints = list(of_keypoints.get("keypoints", []))
    try:
        skeleton = [(a - 1, b - 1) for a, b in of_keypoints.get("skeleton") or []]
    except (TypeError, ValueError):
        raise InputError(
            f"{json}: category {of_keypoints['id']!r}: `skeleton` is not a list of pairs of numbers"
        ) from None
    category_ids = [category["id"] for category in categories]
    records = {image["id"]: _image(image, images, json) for image in _by_id(data["images"], json, "image", "images")}
    contiguous = {category_id: index for index, category_id in enumerate(category_ids)}
    without_area = _add_annotations(annotations, records, contiguous, 3 * len(keypoints), json)
    return DataSet(names, list(records.values()), category_ids, keypoints, skeleton), without_area


def _field(record: Any, name: str, json: Path, kind: str) -> Any:
    try:
        return record[name]
    except (KeyError, TypeError):
        where = f" {record['id']!r}" if isinstance(record, dict) and "id" in record else ""
        raise InputError(f"{json}: {kind}{where} has no `{name}`") from None


def _id(record: Any, json: Path, kind: str) -> int | float | str:
    found = _field(record, "id", json, kind)
    if not isinstance(found, int | float | str):
        raise InputError(f"{json}: {kind} has the `id` {found!r:.100}, expected a number or a text")
    return found


def _by_id(records: list[Any], json: Path, kind: str, plural: str) -> list[dict[str, Any]]:
    try:
        ordered = sorted(records, key=lambda record: _id(record, json, kind))
    except TypeError:
        raise InputError(f"{json}: the ids of `{plural}` are of different types; use numbers or texts alone") from None
    for one, other in pairwise(ordered):
        if one["id"] == other["id"]:
            raise InputError(f"{json}: two {plural} have the id {one['id']!r}")
    return ordered


def _image(image: dict[str, Any], images: Path, json: Path) -> ImageRecord:
    name = _field(image, "file_name", json, "image")
    if not isinstance(name, str) or not name:
        raise InputError(f"{json}: image {image['id']!r}: `file_name` is {name!r}, expected a path")
    if "\\" in name:
        name = name.replace("\\", "/")  # written on Windows
    if name.startswith("/") or ".." in name.split("/") or name[1:3] == ":/":
        raise InputError(
            f"{json}: image {image['id']!r}: `file_name` {name!r} leads out of {images}; make it relative to that folder"
        )
    file = os.path.join(images, name)  # noqa: PTH118, as fast as it gets
    height: Any = image.get("height")
    width: Any = image.get("width")
    if height is None and width is None:  # some tools write neither
        height, width = image_size(Path(file), f"{json}: image {image['id']!r} has no `height` and `width`")
    for side, value in (("height", height), ("width", width)):
        if not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) or value <= 0:
            raise InputError(
                f"{json}: image {image['id']!r}: `{side}` is {value!r}, expected a whole number of pixels above 0"
            )
    return ImageRecord(file, image["id"], int(height), int(width))


def _add_annotations(
    annotations: list[Any],
    records: dict[Any, ImageRecord],
    contiguous: dict[Any, int],
    num_keypoint_values: int,
    json: Path,
) -> list[int | str]:
    """Puts annotations into their images' records; returns the ids of those whose outline has no area."""
    without_area = []
    seen: set[int | str] = set()
    rles: dict[int | str, dict[str, Any]] = {}
    annotation: Any = None
    try:
        for annotation in annotations:
            image = records[annotation["image_id"]]
            category = contiguous[annotation["category_id"]]
            x, y, width, height = annotation["bbox"]
            if not (width >= 0 <= height and math.isfinite(x + y + width + height)):
                raise ValueError
            annotation_id = annotation["id"]
            crowd = annotation.get("iscrowd", 0)
            if annotation_id in seen or annotation.get("ignore") or crowd not in (0, 1, None):
                raise ValueError
            segmentation = annotation.get("segmentation")
            if segmentation:
                if isinstance(segmentation, list):
                    polygons = [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]
                    # The sum of what is not a number fails. A large one may be of many points, or of one that is far out.
                    if not -_LARGE < sum(map(sum, polygons)) < _LARGE:
                        for polygon in polygons:
                            check_outline(polygon, image.height, image.width, "`segmentation`")
                    if len(polygons) < len(segmentation):
                        if not all(isinstance(polygon, list) and len(polygon) % 2 == 0 for polygon in segmentation):
                            raise ValueError
                        if not polygons and any(segmentation):
                            seen.add(annotation_id)
                            without_area.append(annotation_id)
                            continue
                    segmentation = polygons
                else:
                    segmentation = _compressed(segmentation, image)
                    rles[annotation_id] = segmentation
            keypoints = annotation.get("keypoints")
            if keypoints:
                keypoints = _sub_pixel(keypoints, num_keypoint_values)
            seen.add(annotation_id)
            image.annotations.append(
                Annotation(
                    category,
                    (x, y, x + width, y + height),
                    segmentation or None,
                    keypoints or None,
                    bool(crowd),
                    annotation_id,
                )
            )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        if isinstance(annotation, dict) and "id" in annotation:
            where = f"{json}: annotation {annotation['id']!r}"
        else:
            index = next(index for index, other in enumerate(annotations) if other is annotation)
            where = f"{json}: entry {index} of `annotations`"
        fault = str(error) if isinstance(error, InputError) else _fault(annotation, records, contiguous, seen)
        raise InputError(f"{where} {fault}") from error
    broken = find_broken_rle(list(rles.values()))
    if broken is not None:
        annotation_id, rle = list(rles.items())[broken]
        try:
            check_rle(rle)
        except ValueError as error:
            raise InputError(f"{json}: annotation {annotation_id!r} has {error}") from error
    return without_area


def _fault(annotation: Any, records: dict[Any, ImageRecord], contiguous: dict[Any, int], seen: set[int | str]) -> str:
    """Says what the fast path stumbled over."""
    if not isinstance(annotation, dict):
        return f"is a {type(annotation).__name__}, expected a mapping"
    for name in ("id", "image_id", "category_id", "bbox"):
        if name not in annotation:
            return f"has no `{name}`"
    for name in ("id", "image_id", "category_id"):
        if not isinstance(annotation[name], int | float | str):
            return f"has the `{name}` {annotation[name]!r:.100}, expected a number"
    if annotation["image_id"] not in records:
        return f"is of image {annotation['image_id']!r}, which is not there"
    if annotation["category_id"] not in contiguous:
        return f"is of category {annotation['category_id']!r}, which is not there"
    box = annotation["bbox"]
    if not _is_numbers(box) or len(box) != 4 or box[2] < 0 or box[3] < 0:
        return f"has the `bbox` {box!r:.100}, expected [x, y, width, height] with a width and height of at least 0"
    if annotation["id"] in seen:
        return "is there twice; give every annotation an id of its own"
    if annotation.get("ignore"):
        return "is to be ignored (`ignore`), which neither Detectron2 nor the evaluation knows; use `iscrowd`"
    if annotation.get("iscrowd", 0) not in (0, 1, None):
        return f"has the `iscrowd` {annotation['iscrowd']!r:.100}, expected 0 or 1"
    return "has a `segmentation` that is neither a list of polygons [[x, y, x, y, x, y, ...], ...] nor an RLE"


def _is_numbers(values: Any) -> bool:
    # Also integers that are too large for a float are none that can be used.
    return isinstance(values, list) and all(isinstance(v, int | float) and abs(v) <= sys.float_info.max for v in values)


def _sub_pixel(keypoints: Any, num_values: int) -> list[float]:
    """Moves keypoints from the index of a pixel to its centre."""
    if not _is_numbers(keypoints) or len(keypoints) % 3 or (num_values and len(keypoints) != num_values):
        expected = (
            f"{num_values} numbers, three for each of its category's" if num_values else "three numbers a keypoint"
        )
        raise InputError(f"has `keypoints` that are not {expected}")
    return [value if index % 3 == 2 else value + 0.5 for index, value in enumerate(keypoints)]


def _compressed(rle: Any, image: ImageRecord) -> dict[str, Any]:
    if not isinstance(rle, dict):
        raise TypeError
    if isinstance(rle.get("counts"), str) and rle.get("size") == [image.height, image.width]:
        return {
            "size": [image.height, image.width],
            "counts": rle["counts"],
        }  # find_broken_rle checks all of them at once
    try:
        return with_text_counts(check_rle(rle, image.height, image.width))
    except ValueError as error:
        raise InputError(f"has {error}") from error


FORMAT = Format(
    name="coco",
    description="COCO JSON: instances, keypoints and crowds",
    read=read_coco,
    options=(
        Option("json", "the annotation file", "file", required=True),
        Option("images", "the folder that every file_name is relative to", "folder", required=True),
    ),
    shorthand=("json", "images"),
)
