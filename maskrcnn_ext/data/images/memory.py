"""Converts images in memory to the channels that a model takes: arrays, PIL images and the bytes of files."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from maskrcnn_ext.errors import InputError


def convert_image(image: np.ndarray | Image.Image | bytes | bytearray, image_format: str) -> np.ndarray:
    """Returns an image as (H, W, C) with the channels of `image_format`.

    Args:
        image: the bytes of a file; a PIL image; or an array (H, W) or (H, W, C). Three channels of an array are in the order B, G, R as
            OpenCV reads them, or for "raw" in the order that the model was trained on.
        image_format: "BGR", "RGB", "L" or "raw".

    Raises:
        InputError: the bytes cannot be decoded, or the image has another shape or number of channels.

    Example:
        >>> convert_image(np.zeros((4, 6), np.uint8), "BGR").shape
        (4, 6, 3)
    """
    if isinstance(image, Image.Image):
        array = np.asarray(image if image.mode in ("L", "I", "I;16", "F") else image.convert("RGB"))
        return _arrange_bgr(array[:, :, ::-1] if array.ndim == 3 and image_format != "raw" else array, image_format)
    if isinstance(image, bytes | bytearray):
        decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) if image else None
        if decoded is None:
            raise InputError(f"OpenCV cannot decode these {len(image)} bytes as an image")
        return _arrange_bgr(decoded if image_format != "raw" else decoded[:, :, ::-1], image_format)
    return _arrange_bgr(image, image_format)


def _arrange_bgr(array: np.ndarray, image_format: str) -> np.ndarray:
    """Returns an array (H, W) or (H, W, C), whose three channels are B, G, R, in an image format."""
    image = array[:, :, None] if array.ndim == 2 else array
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(
            f"an array of shape {array.shape} is not an image: expected (height, width) or (height, width, channels)"
        )
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
