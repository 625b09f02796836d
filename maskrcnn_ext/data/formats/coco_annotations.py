"""Parses the annotations of COCO JSON. The first fault is an InputError that names file and record.

Annotations take a fast path without separate checks; if it fails for one of them, :func:`_fault` finds out why.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.formats.coco_fields import (
    ById,
    are_numbers,
    has_keypoint_count,
    nest_polygons,
    read_box,
    read_rotated_box,
)
from maskrcnn_ext.data.formats.coco_records import keypoint_names
from maskrcnn_ext.data.formats.polygons import box_of_polygons, check_outline
from maskrcnn_ext.data.formats.records import Annotation, ImageRecord, keypoints_to_subpixel
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import with_text_counts
from maskrcnn_ext.ops.rle_checks import check_rle, check_rle_parts, find_broken_rle

# Polygons with a larger sum of coordinates are checked one by one: only these can cost much memory.
_LARGE = 1e7


def add_annotations(
    annotations: list[Any],
    images: ById[ImageRecord],
    categories: list[dict[str, Any]],
    source: Path | str,
    *,
    for_evaluation: bool = False,
) -> list[Annotation | None]:
    """Parses annotation records and adds them to their images, except those whose outline has no area.

    Args:
        annotations: the records.
        images: see :func:`.coco_records.parse_images`; extended in place.
        categories: see :func:`.coco_records.parse_categories`.
        source: the file, or a name; it begins the error message.
        for_evaluation: whether ids may be missing or used twice, and ``ignore`` may be set: COCOeval sets it itself.

    Returns:
        The annotation of each record, None if its outline has no area.

    Raises:
        InputError: the first record that is broken, with the reason.
    """
    category_index = ById((category["id"], index) for index, category in enumerate(categories))
    num_keypoint_values = 3 * len(keypoint_names(categories))
    seen: set[int | str] = set()
    rles: list[tuple[int | str, dict[str, Any]]] = []
    parsed: list[Annotation | None] = []
    annotation: Any = None
    try:
        for annotation in annotations:
            image = images[annotation["image_id"]]
            category = category_index[annotation["category_id"]]
            segmentation = annotation.get("segmentation")
            box = annotation["bbox"]
            rotated = read_rotated_box(annotation) if len(box) == 5 or "attributes" in annotation else None
            if rotated is not None:
                check_outline(rotated, image.height, image.width, "the rotated box")
                segmentation = segmentation or [rotated]
                x0, y0, x1, y1 = box_of_polygons([rotated], image.height, image.width)
                box = (x0, y0, x1 - x0, y1 - y0)
            x, y, width, height = box
            if not (width >= 0 <= height and math.isfinite(x + y + width + height)):
                raise ValueError
            annotation_id = annotation.get("id") if for_evaluation else annotation["id"]
            crowd = annotation.get("iscrowd", 0)
            if crowd not in (0, 1, None):
                raise ValueError
            if not for_evaluation and (annotation_id in seen or annotation.get("ignore")):
                raise ValueError
            if segmentation:
                if isinstance(segmentation, list):
                    segmentation = nest_polygons(segmentation)
                    polygons: Any = [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]
                    # The sum of values that are not numbers fails. A large sum may be of many points, or of one far outside.
                    if not -_LARGE < sum(map(sum, polygons)) < _LARGE:
                        for polygon in polygons:
                            check_outline(polygon, image.height, image.width, "`segmentation`")
                    if len(polygons) < len(segmentation):
                        if any(
                            isinstance(part, dict) for part in segmentation
                        ):  # some tools write an RLE for each part
                            polygons = _compressed(segmentation, image)
                        elif not all(isinstance(polygon, list) and len(polygon) % 2 == 0 for polygon in segmentation):
                            raise ValueError
                        elif not polygons and any(segmentation):
                            seen.add(annotation_id)
                            parsed.append(None)
                            continue
                    segmentation = polygons
                else:
                    segmentation = _compressed(segmentation, image)
                    rles.append((annotation_id, segmentation))
            keypoints = annotation.get("keypoints")
            if keypoints:
                keypoints = _subpixel_keypoints(keypoints, num_keypoint_values)
            seen.add(annotation_id)
            box = (x, y, x + width, y + height)
            added = Annotation(category, box, segmentation or None, keypoints or None, bool(crowd), annotation_id)
            if annotation.get("point_coords"):
                added.points = parse_points(annotation)
            image.annotations.append(added)
            parsed.append(added)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        index = next(index for index, other in enumerate(annotations) if other is annotation)
        fault = (
            str(error)
            if isinstance(error, InputError)
            else _fault(annotation, images, category_index, seen, for_evaluation=for_evaluation)
        )
        raise InputError(f"{_where(annotation, index, source)} {fault}") from error
    broken = find_broken_rle([rle for _, rle in rles])
    if broken is not None:
        annotation_id, rle = rles[broken]
        try:
            check_rle(rle)
        except ValueError as error:
            raise InputError(f"{source}: annotation {annotation_id!r} has {error}") from error
    return parsed


def _where(annotation: Any, index: int, source: Path | str) -> str:
    """Returns the start of an error message about an annotation."""
    if isinstance(annotation, dict) and "id" in annotation:
        return f"{source}: annotation {annotation['id']!r}"
    return f"{source}: entry {index} of `annotations`"


def _fault(
    annotation: Any,
    images: ById[ImageRecord],
    category_index: ById[int],
    seen: set[int | str],
    *,
    for_evaluation: bool,
) -> str:
    """Returns why the fast path of :func:`add_annotations` has failed."""
    if not isinstance(annotation, dict):
        return f"is a {type(annotation).__name__}, expected a mapping"
    needed = ("image_id", "category_id") if for_evaluation else ("id", "image_id", "category_id")
    for name in (*needed, "bbox"):
        if annotation.get(name) is None:
            return f"has no `{name}`"
    for name in needed:
        if not isinstance(annotation[name], int | float | str):
            return f"has the `{name}` {annotation[name]!r:.100}, expected a number"
    if annotation["image_id"] not in images:
        return f"refers to image {annotation['image_id']!r}, which is missing"
    if annotation["category_id"] not in category_index:
        return f"refers to category {annotation['category_id']!r}, which is missing"
    box = annotation["bbox"]
    if read_box(box) is None or box[2] < 0 or box[3] < 0:
        return f"has the `bbox` {box!r:.100}, expected [x, y, width, height] with a width and height of at least 0"
    try:
        parse_crowd(annotation)
    except InputError as error:
        return str(error)
    if not for_evaluation and annotation.get("ignore"):
        return "has `ignore` set, which neither Detectron2 nor the evaluation knows; use `iscrowd`"
    if not for_evaluation and annotation["id"] in seen:
        return "has an `id` that another annotation has; give each annotation a different one"
    return "has a `segmentation` that is neither a list of polygons [[x, y, x, y, x, y, ...], ...] nor an RLE"


def _subpixel_keypoints(keypoints: Any, num_values: int) -> list[float]:
    """Returns checked keypoints in sub-pixel coordinates."""
    if not are_numbers(keypoints) or not has_keypoint_count(len(keypoints), num_values):
        expected = (
            f"{num_values} numbers, three for each of its category's" if num_values else "three numbers a keypoint"
        )
        raise InputError(f"has `keypoints` that are not {expected}")
    return keypoints_to_subpixel(keypoints)


def parse_crowd(annotation: dict[str, Any]) -> bool:
    """Returns whether an object is a crowd; raises InputError without the place if ``iscrowd`` is neither 0 nor 1."""
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1, None):
        raise InputError(f"has the `iscrowd` {crowd!r:.100}, expected 0 or 1")
    return bool(crowd)


def parse_points(annotation: dict[str, Any]) -> list[float]:
    """Returns ``point_coords`` [[x, y], ...], indices of pixels, and ``point_labels`` as [x, y, label, ...] in sub-pixel coordinates.

    Raises:
        InputError: they are broken; the message is without the place.
    """
    coords, labels = annotation.get("point_coords"), annotation.get("point_labels")
    if not coords:
        return []
    pairs = isinstance(coords, list) and all(isinstance(point, list) and len(point) == 2 for point in coords)
    if not pairs or not are_numbers([value for point in coords for value in point]):
        raise InputError("has `point_coords` that are not a list of [x, y]")
    if not isinstance(labels, list) or len(labels) != len(coords) or not all(label in (0, 1) for label in labels):
        raise InputError(f"has `point_labels` that are not a 0 or 1 for each of its {len(coords)} points")
    return keypoints_to_subpixel(
        [value for (x, y), label in zip(coords, labels, strict=True) for value in (x, y, label)]
    )


def _compressed(rle: Any, image: ImageRecord) -> dict[str, Any]:
    """Returns an RLE, or the union of a list of RLEs, with its counts as text. Compressed counts of a single RLE are not checked."""
    if not isinstance(rle, dict | list):
        raise TypeError
    if isinstance(rle, dict) and isinstance(rle.get("counts"), str) and rle.get("size") == [image.height, image.width]:
        return {"size": [image.height, image.width], "counts": rle["counts"]}
    try:
        size = image.height, image.width
        return with_text_counts(check_rle_parts(rle, *size) if isinstance(rle, list) else check_rle(rle, *size))
    except ValueError as error:
        raise InputError(f"has {error}") from error
