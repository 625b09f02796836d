"""Draws objects on images: tinted masks with outlines, boxes, labels and keypoints. All colours are blue, green, red from 0 to 255."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.common.text import printable
from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle

Color = tuple[int, int, int]

_TINT = 0.45  # share of the colour inside a mask
FONT = cv2.FONT_HERSHEY_SIMPLEX
_LABEL_SCALE = 0.5
_LONGEST_LABEL = 60  # characters
# OpenCV draws at fractions of a pixel if coordinates are integers with this many fractional bits.
_FRACTION_BITS = 4
# The lines of a skeleton are one pixel wide for each 70 pixels of its extent, so near persons have strong lines and far ones thin lines.
_PIXELS_PER_LINE_WIDTH, _MAX_LINE_WIDTH = 70, 6
_RIM_COLOR = (25, 25, 25)


@dataclass(frozen=True)
class DrawnObject:
    """One object to draw.

    Attributes:
        segmentation: polygons, an RLE (compressed or not), or None to draw the box, which is also drawn for an empty mask.
        box: (x0, y0, x1, y1) in pixels.
        label: short text; "" for none.
        color: blue, green, red, 0 to 255.
    """

    segmentation: Any
    box: tuple[float, float, float, float]
    label: str
    color: Color


def palette(index: int) -> Color:
    """Returns a strong colour that differs from those of neighbouring indices: their hues are a golden angle apart.

    Example:
        >>> palette(0), palette(1)
        ((63, 86, 255), (255, 96, 63))
    """
    red, green, blue = colorsys.hsv_to_rgb((0.02 + 0.618034 * index) % 1.0, 0.75, 1.0)
    return int(255 * blue), int(255 * green), int(255 * red)


def draw_objects(
    image: np.ndarray, objects: Iterable[DrawnObject], *, scale: float = 1.0, label_scale: float = _LABEL_SCALE
) -> np.ndarray:
    """Returns a copy of an image with objects drawn on it.

    Args:
        image: (H, W, 3), uint8, BGR; it is not changed.
        objects: drawn in this order; boxes and segmentations in pixels of the image. Of labels that overlap, the last is drawn.
        scale: size of the picture over the size of the image. The thickness of lines and the size of labels do not depend on it.
        label_scale: of OpenCV's font; 0.5 are letters of 11 pixels.

    Example:
        >>> box = DrawnObject(None, (2, 2, 8, 6), "", (0, 0, 255))
        >>> draw_objects(np.zeros((10, 10, 3), np.uint8), [box], scale=2).shape
        (20, 20, 3)
    """
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale >= 2 else cv2.INTER_AREA)
    objects = list(objects)
    for item in objects:
        mask = None
        if item.segmentation is not None:
            mask = decode_rle(segmentation_to_rle(item.segmentation, height, width))
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        if mask is None or not mask.any():
            x0, y0, x1, y1 = (round(value * scale) for value in item.box)
            cv2.rectangle(canvas, (x0, y0), (x1, y1), item.color, 1, cv2.LINE_AA)
        else:
            tint_mask(canvas, mask, item.color)
            outline_mask(canvas, mask, item.color)
    taken = np.zeros(canvas.shape[:2], bool)
    for item in reversed(objects):  # after the masks, so that none covers a label
        if item.label:
            corner = (round(item.box[0] * scale), round(item.box[1] * scale))
            _draw_label(canvas, taken, item.label, corner, item.color, label_scale)
    return canvas


def tint_mask(canvas: np.ndarray, mask: np.ndarray, color: Color) -> None:
    """Mixes a colour into the pixels of a mask, in place.

    Args:
        canvas: (H, W, 3), uint8, BGR; may be a view of a part of an image.
        mask: (H, W), uint8, 0 or 1.
        color: blue, green, red.
    """
    inside = mask > 0
    canvas[inside] = ((1 - _TINT) * canvas[inside] + _TINT * np.array(color)).astype(np.uint8)


def outline_mask(
    canvas: np.ndarray, mask: np.ndarray, color: Color, *, thickness: int = 1, offset: tuple[int, int] = (0, 0)
) -> None:
    """Draws the outline of a mask, holes included, in place.

    Args:
        canvas: (H, W, 3), uint8, BGR, contiguous.
        mask: (h, w), uint8, 0 or 1.
        color: blue, green, red.
        thickness: of the line in pixels.
        offset: x and y of the mask's upper left pixel in the canvas.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)
    cv2.drawContours(canvas, contours, -1, color, thickness, cv2.LINE_AA)


def _draw_label(
    canvas: np.ndarray, taken: np.ndarray, text: str, corner: tuple[int, int], color: Color, scale: float
) -> None:
    """Writes a label whose lower left corner is `corner`, moved into the canvas, unless its place is taken; then takes it."""
    text = drawable(text)
    (width, height), base = cv2.getTextSize(text, FONT, scale, 1)
    x = max(0, min(corner[0], canvas.shape[1] - width - 2))
    y = max(height + base, min(corner[1], canvas.shape[0] - 1))
    x0, y0, x1, y1 = box = (x, y - height - base, x + width + 2, y)
    if not taken[y0:y1, x0:x1].any():
        taken[y0:y1, x0:x1] = True
        draw_text_box(canvas, text, box, (x + 1, y - base + 1), color, scale=scale)


def drawable(text: str) -> str:
    r"""Returns a text that OpenCV can draw: short, and without halves of surrogate pairs, which crash OpenCV.

    Example:
        >>> drawable("cat\ud800"), len(drawable("c" * 1000))
        ('cat\\ud800', 60)
    """
    text = printable(text)
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 3]}..."


def draw_text_box(
    canvas: np.ndarray,
    text: str,
    box: tuple[int, int, int, int],
    origin: tuple[int, int],
    color: Color,
    *,
    scale: float,
    thickness: int = 1,
) -> None:
    """Writes text on a filled box, in black or white, whichever has more contrast.

    Args:
        canvas: (H, W, 3), uint8, BGR, contiguous.
        text: one line.
        box: x0, y0, x1, y1 in pixels.
        origin: x and y of the text's lower left corner, above its descenders.
        color: of the box.
        scale: of OpenCV's font.
        thickness: of the letters in pixels.
    """
    cv2.rectangle(canvas, box[:2], box[2:], color, -1)
    luminance = 0.11 * color[0] + 0.59 * color[1] + 0.3 * color[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    cv2.putText(canvas, text, origin, FONT, scale, ink, thickness, cv2.LINE_AA)


def draw_skeleton(
    canvas: np.ndarray,
    keypoints: np.ndarray,
    links: Sequence[tuple[int, int]],
    color: Color,
    *,
    scale: float = 1.0,
    min_visible: float = 0.05,
) -> None:
    """Draws the keypoints of one object, in place. A dark rim separates them from any background.

    Args:
        canvas: (H, W, 3), uint8, BGR, contiguous.
        keypoints: (K, 3): x and y in pixels of the image, where the centre of the first pixel is at 0.5; and the score of a prediction or
            the visibility of an annotation (0 not labelled, 1 hidden, 2 visible).
        links: pairs of indices of keypoints that a line connects.
        color: blue, green, red.
        scale: size of the canvas over the size of the image.
        min_visible: keypoints below this score are left out, and so are their lines. Detectron2's Visualizer also uses 0.05.

    Example:
        >>> canvas = np.zeros((9, 9, 3), np.uint8)
        >>> draw_skeleton(canvas, np.array([[4.5, 4.5, 1.0]]), [], (0, 255, 0))
        >>> bool(canvas[4, 4].any())
        True
    """
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)
    visible = (points[:, 2] >= min_visible) & (points[:, 2] > 0) & np.isfinite(points).all(axis=1)
    if not visible.any():
        return
    # Very large coordinates would overflow in OpenCV. Any place outside the canvas does as well.
    far = max(canvas.shape)
    centres = np.clip(np.nan_to_num(points[:, :2] * scale), -far, 2 * far)
    positions = np.round((centres - 0.5) * 2**_FRACTION_BITS).astype(int).tolist()
    extent = float(np.ptp(centres[visible], axis=0).max())
    width = int(np.clip(round(extent / _PIXELS_PER_LINE_WIDTH), 1, _MAX_LINE_WIDTH))
    # On a small skeleton, the rim would hide the lines.
    rim = 1 if extent >= _PIXELS_PER_LINE_WIDTH else 0
    lines = [(positions[a], positions[b]) for a, b in links if visible[a] and visible[b]]
    joints = [position for position, is_visible in zip(positions, visible, strict=True) if is_visible]
    for line_color, line_width in ((_RIM_COLOR, width + 2 * rim), (color, width)):
        for start, end in lines:
            cv2.line(canvas, start, end, line_color, line_width, cv2.LINE_AA, _FRACTION_BITS)
    light = tuple(int(value + 0.6 * (255 - value)) for value in color)
    for joint in joints:
        for radius, fill in ((width + 2 * rim, _RIM_COLOR), (width + rim, light)):
            cv2.circle(canvas, joint, radius * 2**_FRACTION_BITS, fill, -1, cv2.LINE_AA, _FRACTION_BITS)
