"""Reads the numbers of a label image's pixels: grey, palette and colour images, TIFFs of a plane or a stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from struct import unpack
from typing import Any

import numpy as np
from PIL import Image

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.image_files import IMAGE_ERRORS, image_size, read_pixels
from maskrcnn_ext.data.formats.volume import whole_numbers
from maskrcnn_ext.errors import InputError

_MAX_COLOURS = 4096  # of a label image; a photograph has more
_FEW = 5  # masks that are read to see what their values mean
_LOSSY = (6, 7)  # TIFF's numbers for the two kinds of JPEG


def read_numbers(file: Path, ignore: Sequence[int] = ()) -> np.ndarray:
    """Returns the numbers (H, W) or, in a stack, (Z, H, W) of a label image, those of `ignore` as 0.

    Raises:
        InputError: the file is missing or unreadable, has too many colours, or values that are not whole numbers.
    """
    numbers = _read_tiff(file) if is_tiff(file) else read_pixels(file)
    if not is_tiff(file) and numbers.ndim == 3:
        numbers = _colour_numbers(numbers, file)
    if ignore:
        numbers = np.where(np.isin(numbers, ignore), 0, numbers)
    return whole_numbers(numbers, file)


def image_shape(file: Path, where: str) -> tuple[int, ...]:
    """Returns the shape of an image from its header: (height, width), or that of a TIFF's first series, slices first.

    Args:
        file: the image.
        where: the file that names the image; it begins the error message.

    Raises:
        InputError: the image is missing or unreadable.
    """
    if not is_tiff(file):
        return image_size(file, where)
    tifffile = _import_tifffile(file)
    try:
        with tifffile.TiffFile(file) as tiff:
            return tuple(tiff.series[0].shape)
    except Exception as error:
        raise InputError(f"{where}: cannot read image {file} ({type(error).__name__}: {error})") from error


def is_tiff(file: Path) -> bool:
    """Returns whether a file has the suffix of a TIFF, which may hold a stack of label images."""
    return file.suffix.lower() in (".tif", ".tiff")


def are_two_valued(files: Sequence[Path]) -> bool:
    """Returns whether masks are binary, so that they do not separate objects: the first few have one value beside 0, or none.

    Args:
        files: the masks.
    """
    most = 0
    for file in files[:_FEW]:
        try:
            with Image.open(file) as mask:
                # Values of 16 bits are numbers of objects.
                found = mask.getcolors(maxcolors=2) if mask.mode in ("1", "L", "P", "RGB", "RGBA") else None
        except IMAGE_ERRORS:
            return False
        if found is None:
            return False
        most = max(most, len(found))
    return most == 2


def _colour_numbers(pixels: np.ndarray, file: Path) -> np.ndarray:
    """Returns the number of each pixel of a colour label image (..., channels): red + 256 green + 65536 blue; 0 if it is transparent.

    Raises:
        InputError: the values have more than 8 bits, or there are too many colours.
    """
    if pixels.dtype != np.uint8:
        raise InputError(f"{file}: a colour label image has 8 bits a channel, this one is {pixels.dtype}")
    channels = pixels.shape[-1]
    colours = pixels[..., : 3 if channels > 2 else 1].astype(np.int32)
    is_grey = (colours == colours[..., :1]).all()
    numbers = colours[..., 0] if is_grey else colours @ np.array([1, 1 << 8, 1 << 16], np.int32)
    if channels in (2, 4):
        numbers = np.where(pixels[..., -1] > 0, numbers, 0)
    count = len(np.unique(numbers))
    if count > _MAX_COLOURS:
        raise InputError(
            f"{file}: has {count} colours, so it is a photograph or its edges were smoothed; save it with one plain colour an object"
        )
    return numbers


def _read_tiff(file: Path) -> np.ndarray:
    tifffile = _import_tifffile(file)
    try:
        with tifffile.TiffFile(file) as tiff:
            axes: str = tiff.series[0].axes
            pixels: np.ndarray = tiff.asarray()
            whole = _is_last(tiff, tiff.pages[-1])
            lossy = tiff.pages[0].compression in _LOSSY
    except Exception as error:  # damaged files raise anything from KeyError to zlib.error
        raise InputError(f"{file}: not a readable TIFF ({type(error).__name__}: {error})") from error
    if not whole:
        raise InputError(f"{file}: truncated, pages are missing at its end")
    if lossy:
        raise InputError(
            f"{file}: JPEG does not keep the numbers of a label image; save it with deflate or uncompressed"
        )
    if axes.endswith("S"):
        pixels = _colour_numbers(pixels, file)
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    return pixels


def _is_last(tiff: Any, page: Any) -> bool:
    """Returns whether no page follows: the offset of the next page, after the tags, is 0. tifffile stops at a broken page."""
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(page.offset)
    (tags,) = unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(page.offset + layout.tagnosize + tags * layout.tagsize)
    return bool(file.read(layout.offsetsize) == bytes(layout.offsetsize))


def _import_tifffile(file: Path) -> Any:
    return require("tifffile", extra="tiff", purpose=f"{file}: reading TIFF")
