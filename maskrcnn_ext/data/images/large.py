"""Photographs that are too large to decode at once. Their windows are read one by one."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.image_files import IMAGE_ERRORS, exif_orientation, open_image
from maskrcnn_ext.data.images import window_of

# Pixels. Windows of smaller images are cut out of the decoded image, which takes less than 300 MB.
LARGE = 2**26


def is_large(path: str) -> bool:
    """Returns whether a file is a photograph of more than :data:`LARGE` pixels; reads only its header."""
    try:
        with open_image(path) as image:
            return image.width * image.height > LARGE
    except IMAGE_ERRORS:  # its reader raises an error that names the fault
        return False


def read_large_window(path: str, record: dict[str, Any]) -> np.ndarray:
    """Reads the record's ``window`` of a photograph as (h, w, C), turned by its EXIF orientation, with palettes resolved.

    Raises:
        InputError: the window is not inside the image, or rasterio is not installed.
    """
    rasterio = require("rasterio", extra="geo", purpose=f"{record['file_name']}: reading windows of a large image")
    with open_image(path) as image:
        orientation = exif_orientation(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            shown = (file.width, file.height) if orientation >= 5 else (file.height, file.width)
            window = _stored_window(window_of(record, *shown), shown, orientation)
            pixels = np.moveaxis(file.read(window=rasterio.windows.Window(*window)), 0, 2)
            return _turn(_resolve_values(pixels, file), orientation)


def _stored_window(
    window: tuple[int, int, int, int], shown: tuple[int, int], orientation: int
) -> tuple[int, int, int, int]:
    """Returns where a window (x, y, width, height) of an image that is shown as (height, width) is in the file."""
    x, y, width, height = window
    if orientation in (2, 3, 6, 7):
        x = shown[1] - x - width
    if orientation in (3, 4, 7, 8):
        y = shown[0] - y - height
    return (y, x, height, width) if orientation >= 5 else (x, y, width, height)


def _turn(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Returns stored pixels (h, w, C) as they are shown."""
    image = stored.swapaxes(0, 1) if orientation >= 5 else stored
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    return image[rows, columns]


def _resolve_values(pixels: np.ndarray, file: Any) -> np.ndarray:
    """Returns colours instead of the indices of a palette, and grey levels of 1, 2 or 4 bits from 0 to 255, as Pillow does."""
    if file.colorinterp[0].name == "palette":
        colours = file.colormap(1)
        palette = np.zeros((256, 4), np.uint8)
        palette[list(colours)] = list(colours.values())
        opaque = (palette[list(colours), 3] == 255).all()
        return palette[pixels[:, :, 0], : 3 if opaque else 4]
    bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    return pixels * np.uint8(255 // (2**bits - 1)) if bits < 8 else pixels
