"""Objects drawn over an image: tinted masks with outlines, boxes where there is no mask, and labels."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle

_TINT = 0.45  # share of the colour inside a mask
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


@dataclass(frozen=True)
class Item:
    """One object to draw.

    Attributes:
        segmentation: polygons, an RLE (compressed or not), or None.
        box: (x0, y0, x1, y1) in pixels.
        label: short text; "" for none.
        color: blue, green, red, 0 to 255.
    """

    segmentation: Any
    box: tuple[float, float, float, float]
    label: str
    color: tuple[int, int, int]


def palette(index: int) -> tuple[int, int, int]:
    """Returns a strong colour (blue, green, red) that differs from its neighbours': hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + 0.618034 * index) % 1.0, 0.75, 1.0)
    return int(255 * blue), int(255 * green), int(255 * red)


def draw(image: np.ndarray, items: Iterable[Item], *, scale: float = 1.0) -> np.ndarray:
    """Returns a copy of an image with objects on it.

    Args:
        image: (height, width, 3), uint8, BGR; left as it is.
        items: drawn in this order; boxes and segmentations in pixels of the image.
        scale: size of the picture over the size of the image; lines and labels keep their thickness.
    """
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale >= 2 else cv2.INTER_AREA)
    labels = []
    for item in items:
        if item.segmentation is None:
            x0, y0, x1, y1 = (round(value * scale) for value in item.box)
            cv2.rectangle(canvas, (x0, y0), (x1, y1), item.color, 1, cv2.LINE_AA)
        else:
            mask = cv2.resize(decode(item.segmentation, height, width), size, interpolation=cv2.INTER_NEAREST)
            inside = mask > 0
            canvas[inside] = ((1 - _TINT) * canvas[inside] + _TINT * np.array(item.color)).astype(np.uint8)
            outline, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(canvas, outline, -1, item.color, 1, cv2.LINE_AA)
        if item.label:
            labels.append((item.label, (round(item.box[0] * scale), round(item.box[1] * scale)), item.color))
    for text, corner, color in labels:  # last, so that no mask covers them
        _write(canvas, text, corner, color)
    return canvas


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Returns a mask (height, width), uint8, 0 or 1, of polygons or an RLE."""
    return np.ascontiguousarray(decode_rle(segmentation_to_rle(segmentation, height, width)))


def _write(canvas: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, int, int]) -> None:
    (width, height), base = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    x = max(0, min(corner[0], canvas.shape[1] - width - 2))
    y = max(height + base, min(corner[1], canvas.shape[0] - 1))
    cv2.rectangle(canvas, (x, y - height - base), (x + width + 2, y), color, -1)
    luminance = 0.11 * color[0] + 0.59 * color[1] + 0.3 * color[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    cv2.putText(canvas, text, (x + 1, y - base + 1), _FONT, _FONT_SCALE, ink, 1, cv2.LINE_AA)
