"""Objects that are drawn as several parts in a label tool, polygons and patches of pixels, as one annotation."""

from __future__ import annotations

import io
import zlib
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from maskrcnn_ext.data.formats.checked_values import category_of, checked_rle
from maskrcnn_ext.data.formats.image_files import IMAGE_ERRORS
from maskrcnn_ext.data.formats.polygons import box_of_polygons, check_outline
from maskrcnn_ext.data.formats.records import Annotation, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, encode_mask, segmentation_to_rle, with_text_counts

# A region with this label is left out of every class, as in labelme's own converters.
IGNORE_LABEL = "__ignore__"
_LARGEST_PNG = 2**28  # bytes that a compressed PNG may unpack to


@dataclass(slots=True)
class DrawnPart:
    """One part of an object: a polygon or a patch of pixels.

    Attributes:
        where: file and place of the part, for messages.
        polygon: [x, y, x, y, ...] in sub-pixel coordinates; empty for a patch.
        patch: (h, w) bool; None for a polygon.
        corner: x and y of the patch's upper left pixel in its image.
    """

    where: str
    polygon: list[float]
    patch: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


def join_parts(parts: Sequence[DrawnPart], height: int, width: int, id: int | str | None = None) -> Annotation:
    """Returns one object, of category 0: polygons, or an RLE if a part is a patch.

    Raises:
        InputError: a polygon is far outside of the image, or the object has no pixel.

    Example:
        >>> join_parts([DrawnPart("a.json", [], np.ones((2, 3), bool), (1, 0))], height=4, width=8).box
        (1.0, 0.0, 4.0, 2.0)
    """
    polygons = [part.polygon for part in parts if part.patch is None]
    for part in parts:
        check_outline(part.polygon, height, width, part.where)
    if len(polygons) == len(parts):
        return Annotation(0, box_of_polygons(polygons, height, width), polygons, id=id)
    mask = np.zeros((height, width), np.uint8)
    if polygons:
        mask |= decode_rle(segmentation_to_rle(polygons, height, width))
    for part in parts:
        if part.patch is not None:
            _paste(mask, part.patch, *part.corner)
    return Annotation(0, *checked_rle(encode_mask(mask), height, width, parts[0].where), id=id)


def add_object(record: ImageRecord, annotation: Annotation, label: str, classes: Sequence[str], where: str) -> None:
    """Adds an object to its image under the category of its label; one that is labelled ``__ignore__`` as a crowd of each class.

    Raises:
        InputError: the label is no class.
    """
    if label != IGNORE_LABEL:
        annotation.category = category_of(label, classes, where)
        record.annotations.append(annotation)
        return
    segmentation = annotation.segmentation
    if segmentation is not None:
        segmentation = with_text_counts(segmentation_to_rle(segmentation, record.height, record.width))
    crowd = replace(annotation, segmentation=segmentation, crowd=True)
    record.annotations += [replace(crowd, category=index) for index in range(len(classes))]


def read_patch(png: Any, where: str, *, compressed: bool = False) -> np.ndarray:
    """Returns the pixels (h, w) bool of a PNG in base64: those above 0, or those that are not transparent if it has four channels.

    Args:
        png: the text.
        where: begins the error message.
        compressed: whether zlib has compressed the PNG.

    Raises:
        InputError: it is no such PNG, or has two or three channels.
    """
    try:
        content = b64decode(png, validate=True)
        if compressed:
            unpacked = zlib.decompressobj()
            content = unpacked.decompress(content, _LARGEST_PNG)
        with Image.open(io.BytesIO(content)) as image:
            patch = np.array(image)
    except (TypeError, zlib.error, *IMAGE_ERRORS) as error:
        raise InputError(f"{where} is not a PNG in base64 ({error})") from error
    if patch.ndim == 3 and patch.shape[2] == 4:
        patch = patch[:, :, 3]
    if patch.ndim != 2:
        raise InputError(f"{where} has {patch.shape[-1]} channels, expected one")
    return patch > 0


def _paste(mask: np.ndarray, patch: np.ndarray, x: int, y: int) -> None:
    """Adds a patch to the image's mask (H, W), without its part outside of the image."""
    height, width = mask.shape
    inside = patch[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    x, y = max(x, 0), max(y, 0)
    mask[y : y + inside.shape[0], x : x + inside.shape[1]] |= inside
