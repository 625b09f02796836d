"""Reads the image files, and compares them with their records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from maskrcnn_ext.common.progress import track
from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.view import DatasetView, ImageView
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES, exif_orientation, image_size, open_image

THUMBNAIL_SIZE = 16  # pixels of each side
_THREADS = 8  # Pillow releases the interpreter lock while it decodes
_ORIENTATION = 0x0112
_PHOTO_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".tif", ".tiff"))
SWAPPING_ORIENTATIONS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The result of reading one image file.

    Attributes:
        problem: a kind of fault if the file cannot be read; the other attributes mean nothing then, unless `has_size`.
        message: details of the problem.
        height: in pixels, after the EXIF orientation is applied, as Detectron2 reads the image.
        width: as `height`.
        orientation: of EXIF, 1 for upright.
        digest: hash of the decoded pixels.
        thumbnail: (16, 16) float32, grey levels.
    """

    problem: str = ""
    message: str = ""
    height: int = 0
    width: int = 0
    orientation: int = 1
    digest: bytes = b""
    thumbnail: np.ndarray | None = None

    @property
    def has_size(self) -> bool:
        """Whether size and orientation are known."""
        return self.problem in ("", "image-large")


# By ImageView.key.
PixelsByImage = dict[tuple[Path | None, str], Pixels]


def read_images(view: DatasetView) -> PixelsByImage:
    """Decodes every image of a dataset once, in several threads.

    Example:
        ::

            view = view_dataset(*find("coco:train.json@images"))
            faults = find_faults(view, read_images(view))
    """
    images = list({image.key: image for image in view.images if image.path is not None}.values())
    with ThreadPoolExecutor(_THREADS) as pool:
        read = track(pool.map(read_image, images), description=f"reading {view.name}", total=len(images))
        return {image.key: pixels for image, pixels in zip(images, read, strict=True)}


def read_image(image: ImageView) -> Pixels:
    """Decodes an image to its last byte. Never raises: a broken file is returned as a problem."""
    if image.path is None or not image.path.is_file():
        return Pixels("image-missing", f"{image.path} does not exist")
    try:
        if image.extra or image.path.suffix.lower() not in _PHOTO_SUFFIXES:
            return _describe(_read_other_format(image), 1)
        with Image.open(image.path) as photo:
            orientation = photo.getexif().get(_ORIENTATION, 1)
            photo.load()
            return _describe(ImageOps.exif_transpose(photo), orientation)
    except Image.DecompressionBombError:
        height, width = image_size(image.path, str(image.path))
        with open_image(image.path) as photo:
            orientation = exif_orientation(photo)
        return Pixels("image-large", f"{width} x {height} pixels, which were not checked", height, width, orientation)
    except Exception as error:  # decoders raise errors of any type for broken bytes
        return Pixels("image-corrupt", str(error) or type(error).__name__)


def _read_other_format(image: ImageView) -> Image.Image:
    """Returns a slice, a window or a file that Pillow does not know as a grey image."""
    from maskrcnn_ext.data.images.pixels import read_pixels

    array = read_pixels({"file_name": str(image.path), **image.extra}, "raw")
    return Image.fromarray(array.mean(axis=2, dtype=np.float32))


def _describe(upright: Image.Image, orientation: int) -> Pixels:
    content = upright.tobytes() + repr((upright.size, upright.mode)).encode()
    return Pixels(
        height=upright.height,
        width=upright.width,
        orientation=orientation,
        digest=hashlib.blake2b(content, digest_size=16).digest(),
        thumbnail=make_thumbnail(upright),
    )


def make_thumbnail(image: Image.Image) -> np.ndarray:
    """Returns the image scaled to (16, 16) grey pixels, float32. 16-bit images keep their range.

    Example:
        >>> float(make_thumbnail(Image.new("RGB", (640, 480), "white")).max())
        255.0
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):  # microscopy, satellites
        grey = Image.fromarray(np.asarray(image, dtype=np.float32))
    else:
        grey = image.convert("L").convert("F")
    return np.asarray(grey.resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BOX))


def check_images(view: DatasetView, pixels: PixelsByImage) -> Iterator[Fault]:
    """Finds files that are missing, broken, or of a different size or rotation than their record says."""
    for image in view.images:
        found = pixels.get(image.key)
        if found is not None and found.problem:
            yield Fault(found.problem, found.message, image)
        if found is not None and found.has_size and image.height is not None and image.width is not None:
            yield from _check_size(image, found)


def _check_size(image: ImageView, found: Pixels) -> Iterator[Fault]:
    recorded, actual = (image.width, image.height), (found.width, found.height)
    swaps = found.orientation in SWAPPING_ORIENTATIONS
    if recorded != actual:
        message = (
            f"the record says {recorded[0]} x {recorded[1]}, the file has {actual[0]} x {actual[1]} (width, height)"
        )
        is_rotated = swaps and recorded == actual[::-1]
        yield Fault("exif-rotation" if is_rotated else "image-size", message, image)
    elif found.orientation != 1 and (not swaps or found.width == found.height):
        yield Fault("exif-unclear", f"EXIF orientation {found.orientation}", image)
