"""Reads images that Pillow opens: 8-bit images by Detectron2, 16-bit colours by OpenCV, because Pillow would reduce them to 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.images import TILING_ADVICE, check_size
from maskrcnn_ext.errors import InputError

_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
_ORIENTATION = 0x0112  # EXIF 2.32, section 4.6.4
_TURNED = (5, 6, 7, 8)  # orientations that exchange rows and columns
_PNG = b"\x89PNG\r\n\x1a\n"


def is_photo(path: str) -> bool:
    """Returns whether a TIFF is a single image of 1, 3 or 4 channels of at most 8 bits, which Pillow decodes completely."""
    try:
        with Image.open(path) as image:
            bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
            return image.n_frames == 1 and max(bits) <= 8
    except (UnidentifiedImageError, Image.DecompressionBombError):  # Pillow cannot identify other numbers of channels
        return False


def read_photo(path: str, image_format: str) -> np.ndarray:
    """Reads an 8-bit image as (H, W, C).

    Args:
        path: the file.
        image_format: a format of Detectron2's ``read_image``, whose result is returned; or "raw" for the stored channels, with palettes
            resolved.
    """
    from detectron2.data.detection_utils import read_image

    if image_format != "raw":
        return np.asarray(read_image(path, image_format))
    with Image.open(path) as image:
        return stored_channels(image)


def read_reduced(
    record: dict[str, Any], image_format: str, least: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Decodes a JPEG at 1/2, 1/4 or 1/8 of its size, which takes less time than decoding all of its pixels.

    Args:
        record: of Detectron2; one that chooses a part of its file is not read.
        image_format: a format of Detectron2's ``read_image``.
        least: height and width that the result must have at least.

    Returns:
        The pixels (h, w, C), and the height and width of the whole image, both turned by its EXIF orientation. None for other files, and if
        no such scale is large enough.
    """
    from detectron2.data.detection_utils import convert_PIL_to_numpy
    from detectron2.utils.file_io import PathManager

    if image_format == "raw" or record.keys() & {"window", "slice", "level"}:
        return None
    try:
        with Image.open(PathManager.get_local_path(str(record["file_name"]))) as image:
            is_turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
            whole = (image.width, image.height) if is_turned else (image.height, image.width)
            size = least if is_turned else least[::-1]
            if (
                image.format != "JPEG"
                or image.draft(None, size) is None
                or image.size[:: 1 if is_turned else -1] == whole
            ):
                return None
            return np.asarray(convert_PIL_to_numpy(ImageOps.exif_transpose(image), image_format)), whole
    except (
        OSError,
        ValueError,
        Image.DecompressionBombError,
    ):  # the reader of whole images raises the error that says why
        return None


def convert_photo(pixels: np.ndarray, image_format: str) -> np.ndarray:
    """Returns 8-bit pixels (H, W, C) with 1 to 4 channels in a format of Detectron2's ``read_image``."""
    from detectron2.data.detection_utils import convert_PIL_to_numpy

    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    return np.asarray(convert_PIL_to_numpy(image, image_format))


def stored_channels(image: Image.Image) -> np.ndarray:
    """Returns the channels of an image as stored (H, W, C), with palettes resolved, turned by its EXIF orientation."""
    if image.mode in ("P", "PA", "1"):
        colours = "RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB"
        image = image.convert("L" if image.mode == "1" else colours)
    return _with_channels(np.asarray(ImageOps.exif_transpose(image)))


def too_large(path: str) -> InputError:
    """Returns the error for an image that Pillow refuses to decode."""
    height, width = image_size(Path(path), path)
    return InputError(f"{path}: {width} x {height} pixels are too many to read at once: {TILING_ADVICE}")


def read_deep(path: str) -> np.ndarray | None:
    """Reads an image of more than 8 bits per channel as (H, W, C), with colours as R, G, B; returns None for an 8-bit image.

    Raises:
        InputError: the file is too large or not an image.
    """
    with Path(path).open("rb") as stream:
        head = stream.read(25)
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image, or broken at its beginning") from None
    except Image.DecompressionBombError:
        raise too_large(path) from None
    with image:
        check_size(path, (image.height, image.width, len(image.getbands())))
        if head.startswith(_PNG) and head[24] == 16:  # the header chunk's bit depth
            # Pillow decodes it first and raises for a truncated file, where OpenCV would fill in zeros.
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):
                return _with_channels(np.asarray(turned).astype(np.uint16))
            return _decode_deep_colours(path)
        if image.mode.startswith(("I", "F")):
            return _with_channels(np.asarray(ImageOps.exif_transpose(image)))
    return None


def _decode_deep_colours(path: str) -> np.ndarray:
    stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise InputError(f"{path}: OpenCV cannot decode it")
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}[stored.shape[2]]
    return stored[:, :, order]


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image[:, :, None] if image.ndim == 2 else image
