"""What Pillow opens. 8-bit images are decoded by Detectron2; Pillow would cut colours of 16 bits down to 8, which OpenCV does not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrcnn_ext.data.images import check_size
from maskrcnn_ext.errors import InputError

_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
_PNG = b"\x89PNG\r\n\x1a\n"


def is_photo(path: str) -> bool:
    """Whether a TIFF is one image of 1, 3 or 4 channels of at most 8 bits, which Pillow decodes completely."""
    try:
        with Image.open(path) as image:
            bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
            return image.n_frames == 1 and max(bits) <= 8
    except (UnidentifiedImageError, Image.DecompressionBombError):  # the former also at another number of channels
        return False


def read_photo(path: str, image_format: str) -> np.ndarray:
    """Reads an 8-bit image, (H, W, C).

    Args:
        path: the file.
        image_format: as in Detectron2's ``read_image``, with its very result; or "raw" for the channels as stored, palettes resolved.
    """
    from detectron2.data.detection_utils import read_image

    if image_format != "raw":
        return np.asarray(read_image(path, image_format))
    with Image.open(path) as image:
        if image.mode in ("P", "PA", "1"):
            colours = "RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB"
            image = image.convert("L" if image.mode == "1" else colours)
        return _with_channels(np.asarray(ImageOps.exif_transpose(image)))


def read_deep(path: str) -> np.ndarray | None:
    """Reads an image of more than 8 bits a channel, (H, W, C) with colours as R, G, B; returns None where it has 8.

    Raises:
        InputError: too large, or no image.
    """
    with Path(path).open("rb") as stream:
        head = stream.read(25)
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image, or broken at its beginning") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}; cut the image into tiles") from None
    with image:
        check_size(path, (image.height, image.width, len(image.getbands())))
        if head.startswith(_PNG) and head[24] == 16:  # the header chunk's bit depth
            # Decoded completely first: OpenCV fills the rest of a truncated file with zeros.
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
