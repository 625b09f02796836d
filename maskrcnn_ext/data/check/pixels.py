"""Reads the image files, and checks them against their records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.hashing import thumbnail
from maskrcnn_ext.data.check.view import DatasetView, ImageView

_THREADS = 8  # Pillow lets go of the interpreter lock while it decodes
_ORIENTATION = 0x0112
_PHOTOS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What reading one file found.

    Attributes:
        problem: a kind of fault, if it could not be read; the rest is without meaning then.
        message: about the problem.
        height: in pixels, after the EXIF orientation, as Detectron2 reads it.
        width: as height.
        orientation: EXIF's, 1 for upright.
        digest: of the decoded pixels.
        thumb: (16, 16) float32, grey.
    """

    problem: str = ""
    message: str = ""
    height: int = 0
    width: int = 0
    orientation: int = 1
    digest: bytes = b""
    thumb: np.ndarray | None = None


# By ImageView.key.
PixelsByImage = dict[tuple[Path | None, str], Pixels]


def read_images(view: DatasetView, progress: Callable[[int, int], None]) -> PixelsByImage:
    """Decodes every image of a data set once.

    Args:
        view: the data set.
        progress: called with how many images are read and how many there are.
    """
    images = list({image.key: image for image in view.images if image.path is not None}.values())
    pixels: PixelsByImage = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, (image, found) in enumerate(zip(images, pool.map(read_image, images), strict=True), start=1):
            pixels[image.key] = found
            progress(done, len(images))
    return pixels


def read_image(image: ImageView) -> Pixels:
    """Decodes an image to its last byte."""
    if image.path is None or not image.path.is_file():
        return Pixels("image-missing", f"there is no {image.path}")
    try:
        if image.extra or image.path.suffix.lower() not in _PHOTOS:
            return _described(_other(image), 1)
        with Image.open(image.path) as photo:
            orientation = photo.getexif().get(_ORIENTATION, 1)
            photo.load()
            return _described(ImageOps.exif_transpose(photo), orientation)
    except Exception as error:  # decoders raise whatever they like about broken bytes
        return Pixels("image-corrupt", str(error) or type(error).__name__)


def _other(image: ImageView) -> Image.Image:
    """A slice, a window, or a file that Pillow does not know: in grey."""
    from maskrcnn_ext.data.images.pixels import read_pixels

    array = read_pixels({"file_name": str(image.path), **image.extra}, "raw")
    return Image.fromarray(array.mean(axis=2, dtype=np.float32))


def _described(upright: Image.Image, orientation: int) -> Pixels:
    content = upright.tobytes() + repr((upright.size, upright.mode)).encode()
    return Pixels(
        height=upright.height,
        width=upright.width,
        orientation=orientation,
        digest=hashlib.blake2b(content, digest_size=16).digest(),
        thumb=thumbnail(upright),
    )


def check_pixels(view: DatasetView, pixels: PixelsByImage) -> Iterator[Fault]:
    """Finds files that are missing, broken, or of another size or rotation than their record says."""
    for image in view.images:
        found = pixels.get(image.key)
        if found is not None and found.problem:
            yield Fault(found.problem, found.message, image)
        elif found is not None and image.height is not None and image.width is not None:
            yield from _check_size(image, found)


def _check_size(image: ImageView, found: Pixels) -> Iterator[Fault]:
    recorded, real = (image.width, image.height), (found.width, found.height)
    sizes = f"the record says {recorded[0]} x {recorded[1]}, the file has {real[0]} x {real[1]} (width, height)"
    if recorded != real:
        turned = found.orientation in _TURNED and recorded == real[::-1]
        yield Fault("exif-rotation" if turned else "image-size", sizes, image)
    elif found.orientation != 1 and (found.orientation not in _TURNED or found.width == found.height):
        yield Fault("exif-unclear", f"EXIF orientation {found.orientation}", image)
