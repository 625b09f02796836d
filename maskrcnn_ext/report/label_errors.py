"""The page of suspect labels: each in a crop of its image, the label beside the model's detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, encode_mask, segmentation_to_rle
from maskrcnn_ext.report.draw import Color, DrawnObject, draw_objects
from maskrcnn_ext.report.pictures import Box, embed_jpeg, read_bgr, shift_box, short_name
from maskrcnn_ext.report.template import write_page

_SIDE = 240  # pixels of a picture's longer side
_CONTEXT, _LEAST_CONTEXT = 0.75, 12.0  # around an object: a share of its longer side, and pixels
_LABEL_COLOR, _FOUND_COLOR = (0, 140, 255), (233, 180, 86)  # blue, green, red


@dataclass(frozen=True)
class Outline:
    """One object.

    Attributes:
        box: (x0, y0, x1, y1) in pixels.
        segmentation: polygons or an RLE; None for a box.
        name: its class, which the title states: written on small objects, it would hide them.
    """

    box: Box
    segmentation: Any
    name: str


@dataclass(frozen=True)
class SuspectLabel:
    """One suspect label on the page.

    Attributes:
        record: the image, a dict of Detectron2.
        title: the kind of the error, in words.
        score: from 0 to 1.
        label: the label; None if it is missing.
        found: the model's detection instead; None if the model found nothing there.
    """

    record: dict[str, Any]
    title: str
    score: float
    label: Outline | None
    found: Outline | None


def write_label_errors_page(page: Path, suspects: Sequence[SuspectLabel], *, title: str, text: str) -> Path:
    """Writes the page; images that cannot be read are left out.

    Args:
        page: the HTML file to write.
        suspects: in the order of the page.
        title: title of the page.
        text: a line below it.

    Returns:
        `page`.
    """
    read = lru_cache(maxsize=8)(lambda index: _read(suspects[index].record))
    first = {str(one.record["image_id"]): index for index, one in reversed(list(enumerate(suspects)))}
    figures = []
    for one in suspects:
        pixels = read(first[str(one.record["image_id"])])
        if pixels is not None:
            figures.append(
                {
                    "data": embed_jpeg(draw_suspect(pixels, one)),
                    "title": one.title,
                    "score": one.score,
                    "file": one.record["file_name"],
                    "name": short_name(one.record["file_name"]),
                }
            )
    return write_page(page, "label_errors.html", title=title, text=text, figures=figures)


def draw_suspect(pixels: np.ndarray, suspect: SuspectLabel) -> np.ndarray:
    """Returns a crop (h, w, 3), uint8, BGR, around the label and the detection, with both drawn.

    Args:
        pixels: the image (H, W, 3), uint8, BGR.
        suspect: the label.
    """
    height, width = pixels.shape[:2]
    shown: list[tuple[Outline, Color]] = []
    for outline, color in ((suspect.label, _LABEL_COLOR), (suspect.found, _FOUND_COLOR)):
        if outline is not None:
            shown.append((outline, color))
    boxes = np.array([outline.box for outline, _ in shown])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    context = max(_LEAST_CONTEXT, _CONTEXT * float((high - low).max()))
    x0, y0 = (int(max(0, value - context)) for value in low)
    x1, y1 = (int(min(size, value + context) + 1) for value, size in zip(high, (width, height), strict=True))
    part = pixels[y0:y1, x0:x1]
    drawn = []
    for outline, color in shown:
        mask = None
        if outline.segmentation:
            whole = decode_rle(segmentation_to_rle(outline.segmentation, height, width))
            mask = encode_mask(whole[y0:y1, x0:x1])
        drawn.append(DrawnObject(mask, shift_box(outline.box, (x0, y0, x1, y1)), "", color))
    return draw_objects(part, drawn, scale=_SIDE / max(part.shape[:2]))


def _read(record: dict[str, Any]) -> np.ndarray | None:
    try:
        return read_bgr(record)
    except InputError:
        return None
