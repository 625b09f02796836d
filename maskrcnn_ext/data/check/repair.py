"""Mends what can be mended of a COCO mapping, in a copy, and says what was done."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.check.boxes import check_boxes, told
from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.masks import check_masks
from maskrcnn_ext.data.check.outlines import fix_polygons
from maskrcnn_ext.data.check.pixels import PixelsByImage
from maskrcnn_ext.data.check.proportions import check_duplicates
from maskrcnn_ext.data.check.repair_images import drop_images, fill_sizes, merge_files, place_objects
from maskrcnn_ext.data.check.segmentation import Segmentation, parse_segmentation
from maskrcnn_ext.data.check.view import Box, DatasetView, ObjectView, view_dataset
from maskrcnn_ext.data.formats.records import box_of_polygons


def repair(
    data: dict[str, Any], folder: Path, faults: list[Fault], pixels: PixelsByImage
) -> tuple[dict[str, Any], list[str]]:
    """Mends a data set. What is sound stays as it is, number by number.

    Args:
        data: a COCO mapping, left as it is.
        folder: what its file names are relative to.
        faults: what :func:`~maskrcnn_ext.data.check.find_faults` found in it.
        pixels: what reading the files found; empty when they were not read.

    Returns:
        A COCO mapping without errors, and a line for each thing that was done.
    """
    # Records are copied one level deep: the steps below put new values into them, and change none.
    lists = {key: [copy(entry) for entry in data[key]] for key in ("images", "annotations", "categories")}
    data = {**data, **lists}
    log: list[str] = []
    parse = _Memory()

    def view() -> DatasetView:
        return view_dataset(data, folder, "", parse)

    fill_sizes(data, view(), pixels, log)
    drop_images(data, view(), faults, log)
    _keep_first_categories(data, view(), log)
    merge_files(data, view(), log)
    place_objects(data, view(), pixels, log)
    _mend_masks(data, view(), log)
    _mend_boxes(data, view(), log)
    _drop_duplicates(data, view(), log)
    _number(data, view(), log)
    return data, log


class _Memory:
    """Reads every segmentation once, however often the data is looked at."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int | None, int | None], tuple[Any, Segmentation]] = {}

    def __call__(self, value: Any, height: int | None, width: int | None) -> Segmentation:
        key = (id(value), height, width)
        if key not in self._known:
            self._known[key] = (value, parse_segmentation(value, height, width))  # kept, so that its id stays its own
        return self._known[key][1]


def _keep_first_categories(data: dict[str, Any], view: DatasetView, log: list[str]) -> None:
    kept: dict[Any, Any] = {}
    for entry, (own, name) in zip(data["categories"], view.categories, strict=True):
        if own is None or name is None or own in kept:
            log.append(f"category {own!r} ({name}): left out, its id or name is missing or taken")
        else:
            kept[own] = entry
    data["categories"] = list(kept.values())


def _mend_masks(data: dict[str, Any], view: DatasetView, log: list[str]) -> None:
    """Mends segmentations and what else an annotation says but its box; drops annotations that nothing can be made of."""
    need_mask = any(found.segmentation.form in ("polygons", "rle") and not found.crowd for found in view.objects)
    kept = []
    for found in view.objects:
        entry = data["annotations"][found.index]
        lost = _why_lost(found, need_mask)
        if not lost:
            done = [*_mend_flags(entry, found, view.num_keypoint_values), *_mend_outline(entry, found)]
            if entry.get("segmentation") == []:
                lost = "nothing of its outline lies in the image"
        if lost:
            log.append(f"{_told(found)}: left out, {lost}")
            continue
        log += [f"{_told(found)}: {text}" for text in done]
        kept.append(entry)
    data["annotations"] = kept


def _why_lost(found: ObjectView, need_mask: bool) -> str:
    if found.image is None:
        return f"there is no image {found.image_id!r}"
    if found.category is None:
        return f"there is no category {found.category_id!r}"
    if found.segmentation.form == "none":
        return "it has no mask" if need_mask else ""
    return "" if found.segmentation.area else "its mask cannot be read or is empty"


def _mend_flags(entry: dict[str, Any], found: ObjectView, num_keypoint_values: int) -> list[str]:
    done = []
    if found.ignored:
        entry.update(iscrowd=1, ignore=0)
        done.append("`ignore` became `iscrowd`")
    count = found.num_keypoint_values
    if count is not None and (count < 0 or count % 3 or (num_keypoint_values and count != num_keypoint_values)):
        del entry["keypoints"]
        done.append("its keypoints are left out")
    return done


def _mend_outline(entry: dict[str, Any], found: ObjectView) -> list[str]:
    image, mask = found.image, found.segmentation
    if mask.form == "none":
        entry.pop("segmentation", None)  # an empty list
    if mask.form != "polygons" or image is None or image.height is None or image.width is None:
        return []
    if (found.crowd or found.ignored) and mask.rle is not None:
        entry["segmentation"] = {**mask.rle, "counts": mask.rle["counts"].decode("ascii")}
        return ["its polygons became an RLE, as crowds have it"]
    mended = fix_polygons(mask.polygons, image.height, image.width)
    if mended == entry["segmentation"]:
        return []
    entry["segmentation"] = mended
    area = parse_segmentation(mended, image.height, image.width).area
    if not area:
        entry["segmentation"] = []
    return [f"its outline was made valid: {len(mended)} polygon(s), {area} pixels (before: {mask.area})"]


def _mend_boxes(data: dict[str, Any], view: DatasetView, log: list[str]) -> None:
    """Measures box and area again where they are wrong."""
    faults = [fault for check in (check_boxes, check_masks) for fault in check(view)]
    wrong_area = {f.object.index for f in faults if f.object is not None and f.kind == "area-mismatch"}
    box_faults = [
        f for f in faults if f.object is not None and (f.kind.startswith("box-") or f.kind == "mask-beyond-box")
    ]
    wrong_box = {f.object.index: f.kind for f in box_faults if f.object is not None}
    kept = []
    for found in view.objects:
        entry = data["annotations"][found.index]
        if found.index in wrong_area:
            entry["area"] = found.segmentation.area
            log.append(f"{_told(found)}: `area` is {found.segmentation.area} now")
        if found.index in wrong_box:
            box = _real_box(found)
            if box is None:
                log.append(f"{_told(found)}: left out, nothing of its box lies in the image")
                continue
            entry["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            log.append(f"{_told(found)}: its box is {told(box)} now ({wrong_box[found.index]})")
        kept.append(entry)
    data["annotations"] = kept


def _real_box(found: ObjectView) -> Box | None:
    """The mask's box; of an object without mask, what lies of its box in the image."""
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


def _drop_duplicates(data: dict[str, Any], view: DatasetView, log: list[str]) -> None:
    doubles = {fault.object.index: fault for fault in check_duplicates(view) if fault.object is not None}
    log += [f"{_told(fault.object)}: left out, {fault.message}" for fault in doubles.values() if fault.object]
    data["annotations"] = [entry for index, entry in enumerate(data["annotations"]) if index not in doubles]


def _number(data: dict[str, Any], view: DatasetView, log: list[str]) -> None:
    """Gives a new id to annotations that have none or a taken one."""
    following = 1 + max((found.id for found in view.objects if isinstance(found.id, int)), default=0)
    taken: set[Any] = set()
    for found in view.objects:
        if found.id is None or found.id in taken:
            data["annotations"][found.index]["id"] = following
            log.append(f"{_told(found)}: has the id {following} now")
            following += 1
        taken.add(found.id)


def _told(found: ObjectView) -> str:
    return f"image {found.image_id!r}, annotation {found.id!r}"
