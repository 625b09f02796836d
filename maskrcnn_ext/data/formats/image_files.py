"""Reads the sizes of images from their headers, and the numbers that masks and label images hold."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from maskrcnn_ext.errors import InputError

# What Pillow reads as an image of a scene.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
# Raised by Pillow for a file that is missing, damaged or not an image.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_EXIF_ORIENTATION = 0x0112
# First bytes of a file -> how Pillow opens it.
_OPENERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\x89PNG": PngImagePlugin.PngImageFile,
    b"\xff\xd8": JpegImagePlugin.JpegImageFile,
    b"II": TiffImagePlugin.TiffImageFile,
    b"MM": TiffImagePlugin.TiffImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
}


def is_image(file: Path) -> bool:
    """Returns whether a file has the suffix of an image that Pillow reads."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def open_image(file: str | Path) -> Image.Image:
    """Opens an image and reads its header, also of an image that is larger than Pillow decodes.

    Raises:
        IMAGE_ERRORS: the file is missing or is not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(file)
    except Image.DecompressionBombError:
        with Path(file).open("rb") as stream:
            head = stream.read(4)
        for magic, opener in _OPENERS.items():
            if head.startswith(magic):
                return opener(file)
        raise


def exif_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of an image, from 1 (upright) to 8; from 5 on, height and width are swapped."""
    # Without EXIF data before its pixels, Pillow would decode a PNG to look for EXIF data behind them.
    exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
    orientation = exif.get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def image_size(file: Path, where: str) -> tuple[int, int]:
    """Returns (height, width) of an image after its EXIF orientation; reads only the header.

    Args:
        file: the image.
        where: the file and record that name the image; it begins the error message.

    Raises:
        InputError: the image is missing or unreadable.
    """
    try:
        with open_image(file) as image:
            width, height = image.size
            turned = exif_orientation(image) >= 5
    except IMAGE_ERRORS as error:
        raise InputError(f"{where}: cannot read image {file} ({error})") from error
    return (width, height) if turned else (height, width)


def read_pixels(file: Path) -> np.ndarray:
    """Returns the values stored in a PNG or another image file, (H, W) or (H, W, channels); for palette images the indices.

    Raises:
        InputError: the file is missing or unreadable.
    """
    try:
        with Image.open(file) as image:
            if image.format in ("JPEG", "MPO"):
                raise InputError(
                    f"{file}: JPEG does not keep the values of a mask or label image; save it as PNG or TIFF"
                )
            image.verify()  # checks all checksums of a PNG, which decoding does not
        with Image.open(file) as image:
            pixels = np.array(image)
            if image.format == "PNG" and image.mode == "L":
                pixels //= _stretch(file)
    except InputError:
        raise
    except IMAGE_ERRORS as error:
        raise InputError(f"{file}: not a readable image ({error})") from error
    return pixels


def read_labels(file: Path, height: int, width: int) -> np.ndarray:
    """Returns the label image (H, W) in a PNG, which must have the size of its image."""
    labels = read_pixels(file)
    if labels.ndim != 2:
        raise InputError(f"{file}: a label image has one channel (numbers or palette indices), not {labels.shape[2]}")
    return check_size(labels, file, height, width)


def check_size(labels: np.ndarray, file: Path, height: int, width: int) -> np.ndarray:
    """Returns a label image (H, W), which must have the size of its image."""
    if labels.shape != (height, width):
        raise InputError(f"{file}: label image is {labels.shape[1]} x {labels.shape[0]}, its image {width} x {height}")
    return labels


def _stretch(file: Path) -> int:
    """Returns the factor by which Pillow scales the values of a grey PNG of 2 or 4 bits."""
    with file.open("rb") as stream:
        bits = stream.read(25)[24]  # the header chunk's bit depth
    return {2: 85, 4: 17}.get(bits, 1)
