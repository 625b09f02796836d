"""Repairs a copy of a COCO mapping as far as possible, and lists what was changed. Deletes nothing that training can read."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.check.changes import Change
from maskrcnn_ext.data.check.checks import check_boxes, check_duplicate_objects, check_masks, describe_box
from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.images import PixelsByImage
from maskrcnn_ext.data.check.outlines import fix_polygons
from maskrcnn_ext.data.check.repair_images import Frame, correct_sizes, drop_images, fill_sizes, merge_records
from maskrcnn_ext.data.check.segmentation import Segmentation, parse_segmentation
from maskrcnn_ext.data.check.view import DatasetView, ObjectView, have_two_types, view_dataset
from maskrcnn_ext.data.formats.checked_values import are_fractions
from maskrcnn_ext.data.formats.coco_fields import Box, has_keypoint_count
from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.ops.rle import with_text_counts


def repair(
    data: dict[str, Any],
    folder: Path,
    faults: list[Fault],
    pixels: PixelsByImage,
    rotated_objects: Frame | None = None,
) -> tuple[dict[str, Any], list[Change]]:
    """Repairs a dataset. Records without faults stay equal, number by number.

    An object is left out only if its image or category is missing, no part of it is inside its image, or another annotation is the same.

    Args:
        data: a COCO mapping; it is not changed.
        folder: the folder that file names are relative to.
        faults: what :func:`~maskrcnn_ext.data.check.find_faults` found.
        pixels: its images, as :func:`~maskrcnn_ext.data.check.read_images` returns them; empty if they were not read.
        rotated_objects: whether the objects of images with an EXIF rotation were drawn on the image as "stored" or as "shown". If None,
            objects that fit only one of the two decide, and images stay as they are if none does.

    Returns:
        A COCO mapping, and the changes.

    Example:
        >>> box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 9, 2]}
        >>> image = {"id": 1, "file_name": "a.jpg", "height": 10, "width": 10}
        >>> data = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
        >>> repaired, log = repair(data, Path(), [], {})
        >>> repaired["annotations"][0]["bbox"], [str(change) for change in log]
        ([5.0, 5.0, 5.0, 2.0], ['image 1, annotation 1: its box is x 5 to 10, y 5 to 7 now (box-beyond-image)'])
    """
    # Records are copied one level deep: the steps below replace values and never change them in place.
    lists = {key: [copy(entry) for entry in data[key]] for key in ("images", "annotations", "categories")}
    data = {**data, **lists}
    log: list[Change] = []
    parse = _CachedParser()

    def view() -> DatasetView:
        return view_dataset(data, folder, "", parse)

    _unify_ids(data, view(), log)
    _match_ids(data, view(), log)
    _write_rotated_boxes(data, view(), log)
    fill_sizes(data, view(), pixels, log)
    drop_images(data, view(), faults, log)
    _keep_first_categories(data, view(), log)
    _drop_broken_fields(data, view(), log)
    merge_records(data, view(), log)
    correct_sizes(data, view(), pixels, rotated_objects, log)
    _scale_fractions(data, view(), log)
    _repair_masks(data, view(), log)
    _repair_boxes(data, view(), log)
    _drop_duplicates(data, view(), log)
    _renumber(data, view(), log)
    return data, log


class _CachedParser:
    """Parses every segmentation once, however often the dataset is viewed."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[int, int | None, int | None], tuple[Any, Segmentation]] = {}

    def __call__(self, value: Any, height: int | None, width: int | None) -> Segmentation:
        key = (id(value), height, width)
        if key not in self._parsed:
            # The value is kept alive, so that no other object gets its id.
            self._parsed[key] = (value, parse_segmentation(value, height, width))
        return self._parsed[key][1]


def _unify_ids(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Writes the ids of images, or of categories, as texts if some are."""
    lists = {"images": [image.id for image in view.images], "categories": [own for own, _ in view.categories]}
    for records, ids in lists.items():
        if have_two_types(ids):
            for entry, own in zip(data[records], ids, strict=True):
                if own is not None:
                    entry["id"] = str(own)
            log.append(Change(f"`{records}`", "all ids became texts"))


def _match_ids(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Writes the ids of images and categories as these write them: 7 or ``"7"``."""
    for found in view.objects:
        if found.image is None or found.category is None:
            continue
        for key, value in (("image_id", found.image.id), ("category_id", view.class_ids[found.category])):
            entry = data["annotations"][found.index]
            if entry[key] != value:
                log.append(Change(_describe(found), f"`{key}` {entry[key]!r} became {value!r}"))
                entry[key] = value


def _drop_broken_fields(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    for broken in view.broken_fields:
        entry = data[broken.records][broken.index]
        names = [name for name in broken.names if entry.pop(name, None) is not None]
        log.append(Change(f"entry {broken.index} of `{broken.records}`", f"its `{'`, `'.join(names)}` left out"))


def _write_rotated_boxes(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Writes rotated boxes as polygons, unless the object has a segmentation already. The rotation, which the polygon has, is left out."""
    for found in view.objects:
        if found.rotated is not None and found.box is not None:
            x0, y0, x1, y1 = found.box
            entry = data["annotations"][found.index]
            entry.update(bbox=[x0, y0, x1 - x0, y1 - y0], segmentation=entry.get("segmentation") or [found.rotated])
            if isinstance(entry.get("attributes"), dict):
                entry["attributes"] = {key: value for key, value in entry["attributes"].items() if key != "rotation"}
            log.append(Change(_describe(found), "its rotated box became a polygon"))


def _keep_first_categories(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    kept: dict[Any, Any] = {}
    for entry, (category_id, name) in zip(data["categories"], view.categories, strict=True):
        if category_id is None or name is None or category_id in kept:
            log.append(Change(f"category {category_id!r} ({name})", "left out, its id or name is missing or taken"))
        else:
            kept[category_id] = entry
    data["categories"] = list(kept.values())


def _scale_fractions(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Writes boxes that are fractions of their images in pixels, and polygons that are, too."""
    if not are_fractions(found.box for found in view.objects if found.box is not None):
        return
    for found in view.objects:
        image, polygons = found.image, found.segmentation.polygons
        if found.box is None or image is None or image.width is None or image.height is None:
            continue
        sides = (image.width, image.height)
        x0, y0, x1, y1 = (edge * side for edge, side in zip(found.box, 2 * sides, strict=True))
        entry = data["annotations"][found.index]
        entry.update(bbox=[x0, y0, x1 - x0, y1 - y0], area=(x1 - x0) * (y1 - y0))
        if polygons and are_fractions((*points.min(axis=0), *points.max(axis=0)) for points in polygons):
            entry["segmentation"] = [(points * sides).ravel().tolist() for points in polygons]
        log.append(Change(_describe(found), "its coordinates, fractions of the image, are in pixels now"))


def _repair_masks(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Repairs everything about annotations but boxes and areas; removes annotations whose image or category is missing."""
    kept = []
    for found in view.objects:
        entry = data["annotations"][found.index]
        if found.image is None or found.category is None:
            missing = "image" if found.image is None else "category"
            log.append(Change(_describe(found), f"left out, its {missing} does not exist", num_objects=1))
            continue
        changes = [*_repair_flags(entry, found, view.num_keypoint_values), *_repair_outline(entry, found)]
        log += [Change(_describe(found), change) for change in changes]
        kept.append(entry)
    data["annotations"] = kept


def _repair_flags(entry: dict[str, Any], found: ObjectView, num_keypoint_values: int) -> list[str]:
    changes = []
    if found.ignored:
        entry.update(iscrowd=1, ignore=0)
        changes.append("`ignore` became `iscrowd`")
    count = found.num_keypoint_values
    if count is not None and not has_keypoint_count(count, num_keypoint_values):
        del entry["keypoints"]
        changes.append("its keypoints are left out")
    return changes


def _repair_outline(entry: dict[str, Any], found: ObjectView) -> list[str]:
    image, mask = found.image, found.segmentation
    if mask.form == "none":
        entry.pop("segmentation", None)  # an empty list
        return []
    if not mask.area:
        del entry["segmentation"]
        return ["its mask, which cannot be read or has no pixel in the image, is left out; its box stays"]
    if mask.form == "rle" and mask.problems and mask.rle is not None:
        entry["segmentation"] = with_text_counts(mask.rle)
        return ["its list of RLEs became one RLE"]
    if mask.form != "polygons" or image is None or image.height is None or image.width is None:
        return []
    if (found.crowd or found.ignored) and mask.rle is not None:
        entry["segmentation"] = with_text_counts(mask.rle)
        return ["its polygons became an RLE, as for every crowd"]
    polygons = fix_polygons(mask.polygons, image.height, image.width)
    if polygons == entry["segmentation"]:
        return []
    area = parse_segmentation(polygons, image.height, image.width).area
    if not area:  # slivers
        del entry["segmentation"]
        return ["its outline, of which no part in the image has an area, is left out; its box stays"]
    entry["segmentation"] = polygons
    return [
        f"its outline was made valid: {plural(len(polygons), 'polygon')}, {plural(area, 'pixel')} (before: {mask.area})"
    ]


def _repair_boxes(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Computes boxes and areas that are wrong from the masks."""
    faults = [fault for check in (check_boxes, check_masks) for fault in check(view)]
    by_object = [(fault.object.index, fault.kind) for fault in faults if fault.object is not None]
    wrong_area = {index for index, kind in by_object if kind == "area-mismatch"}
    wrong_box = {index: kind for index, kind in by_object if kind.startswith("box-") or kind == "mask-beyond-box"}
    kept = []
    for found in view.objects:
        entry = data["annotations"][found.index]
        if found.index in wrong_area:
            entry["area"] = found.segmentation.area
            log.append(Change(_describe(found), f"`area` is {found.segmentation.area} now"))
        if found.index in wrong_box:
            box = _correct_box(found)
            if box is None:
                what = "left out, no part of its box is inside the image, and it has no mask there"
                log.append(Change(_describe(found), what, num_objects=1))
                continue
            entry["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            what = f"its box is {describe_box(box)} now ({wrong_box[found.index]})"
            log.append(Change(_describe(found), what))
        kept.append(entry)
    data["annotations"] = kept


def _correct_box(found: ObjectView) -> Box | None:
    """Returns the box of the mask, or without a mask the part of the annotated box inside the image."""
    image, mask = found.image, found.segmentation
    if image is None or image.height is None or image.width is None:
        return None
    if mask.polygons:
        return box_of_polygons([points.ravel().tolist() for points in mask.polygons], image.height, image.width)
    if mask.box is not None or found.box is None:
        return mask.box
    x0, y0, x1, y1 = found.box
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(image.width)), min(y1, float(image.height)))
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None


def _drop_duplicates(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    duplicates = {fault.object.index: fault for fault in check_duplicate_objects(view) if fault.object is not None}
    for fault in duplicates.values():
        if fault.object is not None:
            where = f"{_describe(fault.object)}, {fault.message}"
            log.append(Change(where, "left out, an object that is annotated twice", num_objects=1))
    data["annotations"] = [entry for index, entry in enumerate(data["annotations"]) if index not in duplicates]


def _renumber(data: dict[str, Any], view: DatasetView, log: list[Change]) -> None:
    """Sets new ids for annotations whose id is missing or taken."""
    next_id = 1 + max((found.id for found in view.objects if isinstance(found.id, int)), default=0)
    taken: set[Any] = set()
    for found in view.objects:
        if found.id is None or found.id in taken:
            data["annotations"][found.index]["id"] = next_id
            log.append(Change(_describe(found), f"has the id {next_id} now"))
            next_id += 1
        taken.add(found.id)


def _describe(found: ObjectView) -> str:
    return f"image {found.image_id!r}, annotation {found.id!r}"
