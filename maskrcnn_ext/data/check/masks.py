"""Checks of masks: polygons, RLEs, and what of them fits together in one set."""

from __future__ import annotations

from collections.abc import Iterator

import shapely

from maskrcnn_ext.data.check.faults import Fault, object_fault
from maskrcnn_ext.data.check.view import DatasetView, ObjectView

# `area` counts as wrong beyond both: a polygon's own area and its pixels' differ by about the outline.
_AREA_SHARE, _AREA_PIXELS = 0.25, 20


def check_masks(view: DatasetView) -> Iterator[Fault]:
    """Finds masks that are missing, broken, empty or outside of the image, and sets of mixed kinds."""
    for found in view.objects:
        for kind, message in found.segmentation.problems:
            yield object_fault(kind, found, message)
        yield from _check_polygons(found)
        yield from _check_pixels(found)
    yield from _check_forms(view)


def _check_polygons(found: ObjectView) -> Iterator[Fault]:
    polygons = found.segmentation.polygons
    crossing = [number for number, points in enumerate(polygons) if not shapely.Polygon(points).is_valid]
    if crossing:
        reason = shapely.is_valid_reason(shapely.Polygon(polygons[crossing[0]]))
        yield object_fault("polygon-crossing", found, f"{_told(crossing)}: {reason}")
    image = found.image
    if image is None or image.height is None or image.width is None:
        return
    beyond = [max(-points.min(), (points - (image.width, image.height)).max()) for points in polygons]
    leaving = [number for number, distance in enumerate(beyond) if distance > 1]
    if leaving:
        message = f"{_told(leaving)}: by up to {max(beyond):.0f} pixels"
        yield object_fault("polygon-beyond-image", found, message)


def _told(numbers: list[int]) -> str:
    return f"polygon{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _check_pixels(found: ObjectView) -> Iterator[Fault]:
    mask = found.segmentation
    if mask.rle is None:
        return
    if mask.area == 0:
        yield object_fault(
            "mask-empty", found, "an RLE of nothing" if mask.form == "rle" else "polygons around no pixel"
        )
    elif found.area is None:
        yield object_fault("area-mismatch", found, f"there is no `area`, the mask has {mask.area} pixels")
    elif abs(found.area - mask.area) > max(_AREA_PIXELS, _AREA_SHARE * mask.area):
        yield object_fault("area-mismatch", found, f"`area` is {found.area:g}, the mask has {mask.area} pixels")


def _check_forms(view: DatasetView) -> Iterator[Fault]:
    """What an object's mask must be depends on what the others' are; crowds are RLEs and not trained on."""
    forms = {form: [o for o in view.objects if o.segmentation.form == form and not o.crowd] for form in _FORMS}
    with_mask = len(forms["polygons"]) + len(forms["rle"])
    if forms["none"] and with_mask:
        for found in forms["none"]:
            yield object_fault("segmentation-missing", found, f"{with_mask} other objects have a mask")
    elif forms["none"]:
        yield Fault("segmentation-none", f"none of {len(forms['none'])} objects has a mask")
    if forms["polygons"] and forms["rle"]:
        rare, common = sorted(("polygons", "rle"), key=lambda form: len(forms[form]))
        names = {"polygons": "polygons", "rle": "an RLE"}
        for found in forms[rare]:
            message = f"{names[rare]}, where {len(forms[common])} objects have {names[common]}"
            yield object_fault("mask-mixed", found, message)
    for found in view.objects:
        if found.crowd and found.segmentation.form == "polygons":
            yield object_fault("crowd-polygon", found, "`iscrowd` is 1, `segmentation` a list of polygons")


_FORMS = ("none", "polygons", "rle")
