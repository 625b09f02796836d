"""Reads images in memory as their files would be read: arrays, PIL images and the bytes of files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from maskrcnn_ext.data.images import plain_type
from maskrcnn_ext.data.images.photos import stored_channels
from maskrcnn_ext.errors import InputError

# The first bytes of the formats whose readers are chosen by the suffix. Others are photographs.
_SUFFIXES = {b"II*\0": ".tif", b"MM\0*": ".tif", b"II+\0": ".tif", b"MM\0+": ".tif", b"\x93NUM": ".npy"}


def read_image(image: Any, image_format: str, read: Callable[[dict[str, Any]], np.ndarray]) -> np.ndarray:
    """Returns the pixels (H, W, C) of anything that is an image, in an image format.

    Args:
        image: a path; the bytes of a file; a PIL image; an array, see :func:`convert_image`; or a record of Detectron2 with ``file_name``.
        image_format: "BGR", "RGB", "L" or "raw".
        read: reads the pixels of a record in that format.

    Raises:
        InputError: it cannot be read, has another type, or has values that are not finite.
    """
    if isinstance(image, str | Path):
        image = {"file_name": str(image)}
    if isinstance(image, dict):
        return np.asarray(read(image))
    if isinstance(image, bytes | bytearray):
        return np.asarray(read_bytes(image, read))
    if isinstance(image, Image.Image | np.ndarray):
        return convert_image(image, image_format)
    raise InputError(
        f"{type(image).__name__} is not an image: expected a path, bytes, an array, a PIL image or a record"
    )


def read_bytes(content: bytes | bytearray, read: Callable[[dict[str, Any]], np.ndarray]) -> np.ndarray:
    """Returns the pixels of the bytes of a file, exactly those of the file itself.

    Args:
        content: all bytes of the file.
        read: reads the pixels of a record with ``file_name``.

    Raises:
        InputError: they cannot be read as an image.
    """
    suffix = _SUFFIXES.get(bytes(content[:4]), ".dcm" if content[128:132] == b"DICM" else "")
    with tempfile.TemporaryDirectory() as folder:  # readers need a path, and Windows a file that is closed
        file = Path(folder, f"bytes{suffix}")
        file.write_bytes(content)
        try:
            return read({"file_name": str(file)})
        except InputError as error:
            raise InputError(str(error).replace(str(file), f"an image of {len(content)} bytes")) from error


def convert_image(image: np.ndarray | Image.Image, image_format: str) -> np.ndarray:
    """Returns an image as (H, W, C) with the channels of `image_format`.

    Args:
        image: a PIL image, which is turned by its EXIF orientation; or an array (H, W) or (H, W, C). Three channels of an array are in the
            order B, G, R as OpenCV reads them, or for "raw" in the order that the model was trained on.
        image_format: "BGR", "RGB", "L" or "raw".

    Raises:
        InputError: the image has another shape or number of channels, or values that are no finite numbers.

    Example:
        >>> convert_image(np.zeros((4, 6), np.uint8), "BGR").shape
        (4, 6, 3)
    """
    if not isinstance(image, Image.Image):
        return _arrange_bgr(image, image_format)
    if image_format == "raw" or image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _arrange_bgr(stored_channels(image), image_format)
    shown = ImageOps.exif_transpose(image).convert("L" if image_format == "L" else "RGB")
    array = np.asarray(shown)
    return _arrange_bgr(array if array.ndim == 2 else array[:, :, ::-1], image_format)


def _arrange_bgr(array: np.ndarray, image_format: str) -> np.ndarray:
    """Returns an array (H, W) or (H, W, C), whose three channels are B, G, R, in an image format."""
    image = array[:, :, None] if array.ndim == 2 else array
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image: expected (height, width) or (height, width, channels)"
        )
    image = plain_type(image, "the image")
    if image_format == "raw":
        return image
    if image.shape[2] not in (1, 3):
        raise InputError(f"the image has {image.shape[2]} channels: expected 1 or 3 for image_format={image_format}")
    if image_format == "L":
        if image.shape[2] == 1:
            return image
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)[:, :, None]
    image = image.repeat(3, axis=2) if image.shape[2] == 1 else image
    return image[:, :, ::-1] if image_format == "RGB" else image
