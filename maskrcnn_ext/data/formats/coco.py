"""COCO JSON (cocodataset.org/#format-data): instances, keypoints, crowds; polygons and both kinds of RLE; any ids, also from 0.

A ``file_name`` that leads out of the image folder is refused: annotation files come from elsewhere.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from json import loads
from pathlib import Path, PurePosixPath
from typing import Any

import pycocotools.mask as mask_util

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


def read_coco(json: Path, images: Path, *, classes: Sequence[str] | None = None) -> DataSet:
    """Reads a COCO annotation file.

    Args:
        json: the annotations.
        images: the folder that the images' ``file_name`` is relative to.
        classes: the class names that the file must have, in the order of its category ids; checked when given.

    Returns:
        A record an image, in the order of the file. An annotation whose outline has no area is left out, with one warning for all.

    Raises:
        InputError: broken JSON, a record that lacks a field or points nowhere, a double id, a file name outside of ``images``, or
            other classes.
    """
    try:
        data = loads(json.read_bytes())
    except ValueError as error:
        raise InputError(f"{json}: not a JSON file ({error})") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "categories")):
        raise InputError(
            f"{json}: not a COCO annotation file (expected a mapping with `images`, `annotations`, `categories`)"
        )
    categories = sorted(data["categories"], key=lambda category: _field(category, "id", json, "category"))
    names = [_field(category, "name", json, "category") for category in categories]
    if classes and list(classes) != names:
        raise InputError(f"`classes` are {', '.join(classes)}, but {json} has {', '.join(names)}")
    category_ids = [category["id"] for category in categories]
    contiguous = {category_id: index for index, category_id in enumerate(category_ids)}
    records: dict[Any, ImageRecord] = {}
    for image in data["images"]:
        record = _image(image, images, json)
        if record.image_id in records:
            raise InputError(f"{json}: two images have the id {record.image_id!r}")
        records[record.image_id] = record
    without_area = []
    for annotation in data.get("annotations", []):
        image_id = _field(annotation, "image_id", json, "annotation")
        if image_id not in records:
            raise InputError(
                f"{json}: annotation {annotation.get('id')!r} is of image {image_id!r}, which is not there"
            )
        found = _annotation(annotation, records[image_id], contiguous, json)
        if found is None:
            without_area.append(annotation.get("id"))
        else:
            records[image_id].annotations.append(found)
    if without_area:
        logger.warning(
            "%s: left out %d annotations whose outline has no area, such as id %s",
            json,
            len(without_area),
            without_area[0],
        )
    of_keypoints: dict[str, Any] = next((category for category in categories if category.get("keypoints")), {})
    skeleton = [(a - 1, b - 1) for a, b in of_keypoints.get("skeleton", [])]
    return DataSet(names, list(records.values()), category_ids, list(of_keypoints.get("keypoints", [])), skeleton)


def _field(record: dict[str, Any], name: str, json: Path, kind: str) -> Any:
    try:
        return record[name]
    except (KeyError, TypeError):
        where = f" {record['id']!r}" if isinstance(record, dict) and "id" in record else ""
        raise InputError(f"{json}: {kind}{where} has no `{name}`") from None


def _image(image: dict[str, Any], images: Path, json: Path) -> ImageRecord:
    name = _field(image, "file_name", json, "image")
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise InputError(
            f"{json}: image {image.get('id')!r}: `file_name` {name!r} leads out of {images}; make it relative to that folder"
        )
    height, width = (_field(image, side, json, "image") for side in ("height", "width"))
    return ImageRecord(str(images / name), _field(image, "id", json, "image"), height, width)


def _annotation(
    annotation: dict[str, Any], image: ImageRecord, contiguous: dict[int, int], json: Path
) -> Annotation | None:
    """Returns None where the outline has no area."""
    category_id = _field(annotation, "category_id", json, "annotation")
    where = f"{json}: annotation {annotation.get('id')!r}"
    if category_id not in contiguous:
        raise InputError(f"{where} is of category {category_id!r}, which is not there")
    try:
        x, y, width, height = (float(value) for value in _field(annotation, "bbox", json, "annotation"))
    except (TypeError, ValueError):
        raise InputError(f"{where}: `bbox` is {annotation['bbox']!r}, expected [x, y, width, height]") from None
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        segmentation = _compressed(segmentation, image, where)
    elif segmentation:
        segmentation = [polygon for polygon in segmentation if len(polygon) % 2 == 0 and len(polygon) >= 6]
        if not segmentation:
            return None
    return Annotation(
        contiguous[category_id],
        (x, y, x + width, y + height),
        segmentation or None,
        annotation.get("keypoints"),
        bool(annotation.get("iscrowd", 0)),
        annotation.get("id"),
    )


def _compressed(rle: dict[str, Any], image: ImageRecord, where: str) -> dict[str, Any]:
    if list(rle.get("size", [])) != [image.height, image.width]:
        raise InputError(
            f"{where}: RLE of size {rle.get('size')}, but its image is {image.height} x {image.width} (height, width)"
        )
    counts = rle.get("counts")
    if isinstance(counts, list):
        if sum(counts) != math.prod(rle["size"]):
            raise InputError(
                f"{where}: the RLE's counts add up to {sum(counts)}, not to its {math.prod(rle['size'])} pixels"
            )
        encoded: dict[str, Any] = mask_util.frPyObjects(rle, image.height, image.width)
        return {**encoded, "counts": encoded["counts"].decode("ascii")}
    if not isinstance(counts, str):
        raise InputError(f"{where}: `counts` of an RLE are a list or a text, not {type(counts).__name__}")
    return rle
