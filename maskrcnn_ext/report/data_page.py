"""The HTML page of a dataset: its faults with pictures, its objects in numbers, and the anchors that fit them. One HTML file."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.check import KINDS, SEVERITIES, DatasetView, Fault, group_by_kind
from maskrcnn_ext.data.check.anchors import AnchorAdvice
from maskrcnn_ext.data.check.view import ImageView, ObjectView
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, encode_mask
from maskrcnn_ext.report.charts import bar_chart, histogram
from maskrcnn_ext.report.draw import DrawnObject, draw_objects
from maskrcnn_ext.report.pictures import embed_jpeg, read_bgr, shift_box, short_name
from maskrcnn_ext.report.template import write_page

_NUM_PICTURES = 6  # of each kind of fault, and of samples
_NUM_LINES = 200  # of each kind of fault
_SIDE = 480  # pixels of a picture's longer side
_MARGIN = 0.6  # around the object, as a share of its longer side
_MIN_MARGIN = 16.0  # pixels
# Blue, green, red: colours of Okabe and Ito, which colour-blind readers can distinguish.
_MASK_COLOR, _BOX_COLOR = (233, 180, 86), (0, 140, 255)
_CLASS_COLORS = (
    (233, 180, 86),
    (0, 140, 255),
    (115, 158, 0),
    (167, 121, 204),
    (66, 228, 240),
    (178, 114, 0),
    (0, 94, 213),
    (220, 220, 220),
)


def write_data_page(view: DatasetView, faults: list[Fault], advice: AnchorAdvice | None, page: Path) -> Path:
    """Writes the page.

    Args:
        view: the dataset.
        faults: its faults, from :func:`maskrcnn_ext.data.check.find_faults`.
        advice: anchors and input size that fit; None if the dataset has no boxes.
        page: the file to write.

    Returns:
        `page`.

    Raises:
        InputError: the page cannot be written.
    """
    counts = Counter(fault.severity for fault in faults)
    classes = Counter(found.category for found in view.objects if found.category is not None)
    per_image = [len(view.objects_of(image)) for image in view.images]
    return write_page(
        page,
        "data_page.html",
        title=view.name,
        num_images=len(view.images),
        num_objects=len(view.objects),
        severities=[(severity, counts[severity]) for severity in SEVERITIES],
        samples=_samples(view),
        legend=_legend(view),
        sections=[_section(view, kind, of_kind) for kind, of_kind in group_by_kind(faults).items()],
        advice=advice,
        charts=[
            histogram(
                _object_sizes(view),
                xlabel="object size (square root of the box's area, pixels)",
                ylabel="objects",
                log=True,
            ),
            histogram(per_image, xlabel="objects per image", ylabel="images"),
            bar_chart({name: classes[index] for index, name in enumerate(view.classes)}, xlabel="objects per class"),
        ],
    )


def _samples(view: DatasetView) -> list[dict[str, Any]]:
    """Returns pictures of images with their objects, spread over the data set."""
    with_objects = [image for image in view.images if view.objects_of(image)]
    step = max(1, len(with_objects) // _NUM_PICTURES)
    samples = []
    for image in with_objects[::step][:_NUM_PICTURES]:
        pixels = _read(image)
        if pixels is not None:
            objects = view.objects_of(image)
            drawn = _draw_sample(pixels, image, objects)
            name = str(image.file_name or image.id)
            caption = plural(len(objects), "object")
            samples.append({"image": embed_jpeg(drawn), "name": short_name(name), "file": name, "caption": caption})
    return samples


def _legend(view: DatasetView) -> list[tuple[str, str]]:
    """Returns the classes with the colours of :func:`_draw_sample`; [] if they are one, or more than there are colours."""
    if not 1 < len(view.classes) <= len(_CLASS_COLORS):
        return []
    colors = [f"rgb({red}, {green}, {blue})" for blue, green, red in _CLASS_COLORS]
    return list(zip(view.classes, colors, strict=False))


def _draw_sample(pixels: np.ndarray, image: ImageView, objects: list[ObjectView]) -> np.ndarray:
    """Returns an image with the mask of each object, or its box if it has none, in the colour of its class."""
    has_recorded_size = (image.height, image.width) == pixels.shape[:2]
    drawn = []
    for found in objects:
        rle = found.segmentation.rle if has_recorded_size else None
        if rle is not None or found.box is not None:
            box = shift_box(found.box, (0, 0, pixels.shape[1], pixels.shape[0])) if found.box else (0, 0, 0, 0)
            drawn.append(DrawnObject(rle, box, "", _CLASS_COLORS[(found.category or 0) % len(_CLASS_COLORS)]))
    return draw_objects(pixels, drawn, scale=_SIDE / max(pixels.shape[:2]))


def _section(view: DatasetView, kind: str, faults: list[Fault]) -> dict[str, Any]:
    pictures = []
    for fault in faults[:_NUM_LINES]:
        images = fault_pictures(fault, view.objects_of(fault.image) if fault.image is not None else [])
        if images:
            name = short_name(str(fault.image.file_name or fault.image.id)) if fault.image else ""
            place = f"{name}, annotation {fault.object.id}" if fault.object else name
            pictures.append({"images": images, "where": fault.where, "place": place, "message": fault.message})
        if len(pictures) == _NUM_PICTURES:
            break
    return {
        "kind": kind,
        "severity": KINDS[kind].severity,
        "title": KINDS[kind].title,
        "fix": KINDS[kind].fix,
        "count": len(faults),
        "faults": faults[:_NUM_LINES],
        "pictures": pictures,
    }


def _object_sizes(view: DatasetView) -> list[float]:
    boxes = [found.box for found in view.objects if found.box is not None]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes if box[2] > box[0] and box[3] > box[1]]
    return [math.sqrt(area) for area in areas]


def fault_pictures(fault: Fault, objects: list[ObjectView]) -> list[str]:
    """Returns pictures of a fault as ``data:`` addresses: one of its image, two if it compares images, none if they cannot be read.

    Args:
        fault: a fault.
        objects: the objects of the fault's image. They are drawn if the fault concerns the whole image.
    """
    if fault.image is None:
        return []
    shown = [(fault.image, [fault.object] if fault.object is not None else objects)]
    if fault.other is not None:
        shown = [(fault.image, []), (fault.other, [])]
    pictures = []
    for image, drawn in shown:
        pixels = _read(image)
        if pixels is not None:
            pictures.append(embed_jpeg(_draw(pixels, image, drawn)))
    return pictures


def _read(image: ImageView) -> np.ndarray | None:
    """Returns the pixels (H, W, 3), uint8, BGR; None if the image cannot be read."""
    if image.path is None or not image.path.is_file():
        return None
    try:
        return read_bgr({"file_name": str(image.path), **image.extra})
    except InputError:
        return None


def _draw(pixels: np.ndarray, image: ImageView, objects: list[ObjectView]) -> np.ndarray:
    """Returns an image with its objects, or the part of it around the object if it is one."""
    height, width = pixels.shape[:2]
    has_recorded_size = (image.height, image.width) == (height, width)
    crop = x0, y0, x1, y1 = _crop_around(objects[0], width, height) if len(objects) == 1 else (0, 0, width, height)
    part = pixels[y0:y1, x0:x1]
    drawn = []
    for found in objects:
        rle = found.segmentation.rle
        if rle is not None and has_recorded_size:
            mask = decode_rle(rle)[y0:y1, x0:x1]
            if mask.any():
                drawn.append(DrawnObject(encode_mask(mask), (0, 0, 0, 0), "", _MASK_COLOR))
        if found.box is not None:
            drawn.append(DrawnObject(None, shift_box(found.box, crop), "", _BOX_COLOR))
    return draw_objects(part, drawn, scale=_SIDE / max(part.shape[:2]))


def _crop_around(found: ObjectView, width: int, height: int) -> tuple[int, int, int, int]:
    """Returns the part of the image around box and mask of an object; the whole image if they are outside of it."""
    boxes = [box for box in (found.box, found.segmentation.box) if box is not None]
    if not boxes:
        return 0, 0, width, height
    corners = np.array(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(_MIN_MARGIN, _MARGIN * float((high - low).max()))
    x0, y0 = (max(0, int(value - margin)) for value in low)
    x1, y1 = (min(size, int(value + margin) + 1) for size, value in zip((width, height), high, strict=True))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else (0, 0, width, height)
