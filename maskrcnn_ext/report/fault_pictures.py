"""Pictures of faults: the part of the image with the object, its mask tinted and its box drawn."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.data.check import Fault
from maskrcnn_ext.data.check.view import Box, ImageView, ObjectView
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.tools.browse import readable_format, to_bgr
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, encode_mask
from maskrcnn_ext.report.draw import Item, draw

_SIDE = 300  # pixels of a picture's longer side
_MARGIN = 0.6  # of the object's longer side, around it
_MASK, _BOX = (60, 160, 255), (80, 60, 255)  # blue, green, red
_QUALITY = 80


def picture_of(fault: Fault, objects: list[ObjectView]) -> list[str]:
    """Returns what shows a fault, as ``data:`` addresses: no picture, one, or two of images that are compared.

    Args:
        fault: of an image.
        objects: what is drawn where the fault is not of one object: all of the image.
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
            pictures.append(_embed(_draw(pixels, image, drawn)))
    return pictures


def _read(image: ImageView) -> np.ndarray | None:
    """Returns (H, W, 3) uint8, BGR; None for an image that cannot be read."""
    if image.path is None or not image.path.is_file():
        return None
    record = {"file_name": str(image.path), **image.extra}
    image_format = readable_format(record)
    try:
        return to_bgr(read_pixels(record, image_format), image_format)
    except InputError:
        return None


def _draw(pixels: np.ndarray, image: ImageView, objects: list[ObjectView]) -> np.ndarray:
    height, width = pixels.shape[:2]
    same_size = (image.height, image.width) == (height, width)
    x0, y0, x1, y1 = _region(objects, width, height) if len(objects) == 1 else (0, 0, width, height)
    part = pixels[y0:y1, x0:x1]
    items = []
    for found in objects:
        rle = found.segmentation.rle
        if rle is not None and same_size:
            mask = decode_rle(rle)[y0:y1, x0:x1]
            if mask.any():
                items.append(Item(encode_mask(mask), (0, 0, 0, 0), "", _MASK))
        if found.box is not None:
            # A little beyond the picture at most: OpenCV draws with 16-bit numbers.
            box = [min(max(v - start, -9.0), size + 9.0) for v, start, size in _edges(found.box, part, x0, y0)]
            items.append(Item(None, (box[0], box[1], box[2], box[3]), "", _BOX))
    return draw(part, items, scale=_SIDE / max(part.shape[:2]))


def _edges(box: Box, part: np.ndarray, x0: int, y0: int) -> list[tuple[float, int, int]]:
    height, width = part.shape[:2]
    return [(box[0], x0, width), (box[1], y0, height), (box[2], x0, width), (box[3], y0, height)]


def _region(objects: list[ObjectView], width: int, height: int) -> tuple[int, int, int, int]:
    """What to show around an object: box and mask with a margin; the whole image where these are not in it."""
    boxes = [box for found in objects for box in (found.box, found.segmentation.box) if box is not None]
    if not boxes:
        return 0, 0, width, height
    corners = np.array(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(16.0, _MARGIN * float((high - low).max()))
    x0, y0 = (max(0, int(value - margin)) for value in low)
    x1, y1 = (min(size, int(value + margin) + 1) for size, value in zip((width, height), high, strict=True))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else (0, 0, width, height)


def _embed(pixels: np.ndarray) -> str:
    encoded: Any = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
