"""Images that are read window by window."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.images import MAX_VALUES, plain_type, window_of
from maskrcnn_ext.data.images.large import is_large
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.tile_grid import Window

_PHOTO_SUFFIXES = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")


class WindowedImage:
    """An image whose size is known without reading it and whose pixels are read window by window.

    Of a TIFF, a NumPy file or a photograph of more than 67 million pixels only the window is read. Other files are decoded once and kept
    in memory.

    Attributes:
        height: height in pixels.
        width: width in pixels.

    Example:
        >>> image = WindowedImage(np.arange(12, dtype=np.uint8).reshape(3, 4, 1))
        >>> image.read((1, 0, 2, 1)).ravel()
        array([1, 2], dtype=uint8)
    """

    def __init__(
        self,
        image: str | Path | dict[str, Any] | np.ndarray,
        image_format: str = "BGR",
        *,
        read: Callable[[dict[str, Any]], np.ndarray] | None = None,
    ) -> None:
        """Opens an image.

        Args:
            image: a file; a record of Detectron2 (``file_name`` and optionally ``window``, ``slice``, ...); or an array (H, W, C).
            image_format: format of the pixels of a file, see :func:`maskrcnn_ext.data.images.pixels.read_pixels`.
            read: reads the pixels of a record, instead of that function.

        Raises:
            InputError: it cannot be read.
        """
        self._read = read or partial(read_pixels, image_format=image_format)
        self._pixels: np.ndarray | None = None
        self._record: dict[str, Any] = {}
        self._origin = (0, 0)
        self._rows: tuple[int, int, np.ndarray] | None = None  # first row, number of rows, pixels
        if isinstance(image, np.ndarray):
            self._pixels = plain_type(image, "the image")
        else:
            self._record = dict(image) if isinstance(image, dict) else {"file_name": str(image)}
            size = _stored_size(self._record)
            if size is None:
                self._pixels = self._read(self._record)
            elif "window" in self._record:
                x, y, self.width, self.height = window_of(self._record, *size)
                self._origin = (x, y)
            else:
                self.height, self.width = size
        if self._pixels is not None:
            self.height, self.width = self._pixels.shape[:2]

    def read(self, window: Window) -> np.ndarray:
        """Returns the pixels (height, width, C) of a window (x, y, width, height).

        Raises:
            InputError: it cannot be read.
        """
        x, y, width, height = window
        if self._pixels is not None:
            return self._pixels[y : y + height, x : x + width]
        left, top = self._origin
        is_photo = PurePath(str(self._record["file_name"])).suffix.lower() in _PHOTO_SUFFIXES
        if is_photo and 3 * self.width * height <= MAX_VALUES:
            # Decoding begins at the first row of the file, so that the windows beside this one take theirs from the same rows.
            if self._rows is None or self._rows[:2] != (y, height):
                self._rows = None  # frees them first
                rows = self._read({**self._record, "window": [left, top + y, self.width, height]})
                self._rows = y, height, rows
            return self._rows[2][:, x : x + width]
        return self._read({**self._record, "window": [left + x, top + y, width, height]})


def _stored_size(record: dict[str, Any]) -> tuple[int, int] | None:
    """Returns height and width of a file whose windows can be read; None for other files."""
    from detectron2.utils.file_io import PathManager

    name = str(record["file_name"])
    suffix = PurePath(name).suffix.lower()
    if "slice" in record:
        return None
    path = PathManager.get_local_path(name)
    if suffix in _PHOTO_SUFFIXES and is_large(path):
        return image_size(Path(path), name)
    if suffix not in (".tif", ".tiff", ".npy"):
        return None
    if suffix == ".npy":
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (OSError, ValueError) as error:
            raise InputError(f"{name}: cannot be read as an array ({error})") from error
        return (shape[0], shape[1]) if len(shape) in (2, 3) else None
    rasterio = require("rasterio", extra="geo", purpose=f"{name}: reading it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as file:
                return file.height, file.width
        except rasterio.errors.RasterioIOError as error:
            raise InputError(f"{name}: cannot be read as an image ({error})") from error
