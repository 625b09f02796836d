"""What the readers share: files, names and numbers, each with an error that says what is wrong where."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from json import loads
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import RLE, Box, check_rle, rle_box, with_text_counts

Item = TypeVar("Item")
Result = TypeVar("Result")

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Pillow lets go of the interpreter lock while it decodes, and opening files waits for the disk: a few threads help.
_THREADS = 8
# What Pillow raises where a file is missing, no image or damaged.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_EXIF_ORIENTATION = 0x0112
_LONGEST_NAME = 255  # bytes that file systems take


def read_text(file: Path) -> str:
    """Returns the text of a UTF-8 file, without a byte order mark."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a readable text file ({error})") from error


def read_json(file: Path) -> Any:
    """Returns what a JSON file holds, in whichever of Unicode's encodings."""
    try:
        return loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a JSON file ({error})") from error


def image_size(file: Path, where: str) -> tuple[int, int]:
    """Returns (height, width) of an image as it is shown, that is after its EXIF orientation; reads the header only.

    Args:
        file: the image.
        where: the file, and the record in it, that names the image; it begins the error message.

    Raises:
        InputError: the image is missing or unreadable.
    """
    try:
        with Image.open(file) as image:
            width, height = image.size
            # A PNG without EXIF data before its pixels would be decoded to look for such behind them.
            exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
            turned = exif.get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except IMAGE_ERRORS as error:
        raise InputError(f"{where}: cannot read image {file} ({error})") from error
    return (width, height) if turned else (height, width)


def read_pixels(file: Path) -> np.ndarray:
    """Returns the numbers that a PNG (or another image file) stores, (H, W) or (H, W, channels): of a palette image its indices.

    Raises:
        InputError: the file is missing or unreadable.
    """
    try:
        with Image.open(file) as image:
            if image.format in ("JPEG", "MPO"):
                raise InputError(
                    f"{file}: JPEG does not keep the numbers of a mask or label image; save it as PNG or TIFF"
                )
            image.verify()  # of a PNG all checksums, which decoding it does not look at
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
    """Returns the label image (H, W) in a PNG, whose size must be its image's."""
    labels = read_pixels(file)
    if labels.ndim != 2:
        raise InputError(f"{file}: a label image has one channel (numbers or palette indices), not {labels.shape[2]}")
    if labels.shape != (height, width):
        raise InputError(f"{file}: label image is {labels.shape[1]} x {labels.shape[0]}, its image {width} x {height}")
    return labels


def _stretch(file: Path) -> int:
    """Returns the factor that Pillow stretches the numbers of a grey PNG of 2 or 4 bits by."""
    with file.open("rb") as stream:
        bits = stream.read(25)[24]  # the header chunk's bit depth
    return {2: 85, 4: 17}.get(bits, 1)


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the files and folders that a pattern finds, sorted, without what is hidden.

    Archives made on a Mac hold a ``._a.xml`` beside every ``a.xml``, and notebooks leave copies in ``.ipynb_checkpoints``.
    """
    found = ((path, path.relative_to(folder).parts) for path in folder.glob(pattern))
    return sorted(path for path, parts in found if not any(part.startswith(".") for part in parts))


def stem_of(file: Path, suffixes: Sequence[str]) -> str | None:
    """The name without whichever of ``suffixes``, such as ``.nii.gz``, it has; None where it has none of them."""
    return next((file.name[: -len(suffix)] for suffix in suffixes if file.name.lower().endswith(suffix)), None)


def list_images(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Returns the images of a folder by their stems, sorted.

    Raises:
        InputError: no folder, or two images of one stem.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    images: dict[str, Path] = {}
    for path in list_files(folder, "*"):
        stem = stem_of(path, suffixes)
        if stem is None:
            continue
        if stem in images:
            raise InputError(f"{folder}: {images[stem].name} and {path.name} have the same name: keep one")
        images[stem] = path
    return images


def parse_name(name: Any, where: str) -> PureWindowsPath:
    """Returns a file name that an annotation file gives, with slashes of either kind."""
    path = PureWindowsPath(name) if isinstance(name, str) and "\0" not in name else PureWindowsPath()
    if not path.name or max(len(part.encode("utf-8", "replace")) for part in path.parts) > _LONGEST_NAME:
        raise InputError(f"{where}: {name!r:.100} is not a file name")
    return path


def path_below(folder: Path, name: Any, where: str) -> Path:
    """Returns ``folder / name``, where the name, which comes from an annotation file, does not lead out of the folder."""
    path = parse_name(name, where)
    if path.anchor or ".." in path.parts:
        raise InputError(f"{where}: file name {name!r} leads out of {folder}; make it relative to that folder")
    return folder / path.as_posix()


def finite(values: Iterable[Any], where: str) -> list[float]:
    """Returns numbers as floats; anything else, infinities and NaN are refused."""
    values = list(values)
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: expected numbers, found {values!r:.100}") from None
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{where}: expected finite numbers, found {values!r:.100}")
    return numbers


def category_of(name: Any, classes: Sequence[str], where: str) -> int:
    """Returns the index of a class name."""
    if name not in classes:
        raise InputError(f"{where}: class {name!r}, expected one of {', '.join(classes)}")
    return list(classes).index(name)


def clip_box(box: Sequence[float], height: int, width: int, where: str) -> tuple[float, float, float, float]:
    """Returns what lies of a box (x0, y0, x1, y1) inside an image.

    Raises:
        InputError: nothing does.
    """
    x0, x1 = (min(max(x, 0.0), float(width)) for x in box[0::2])
    y0, y1 = (min(max(y, 0.0), float(height)) for y in box[1::2])
    if x0 >= x1 or y0 >= y1:
        raise InputError(f"{where}: box (x0, y0, x1, y1) {tuple(box)} has no area in an image of {width} x {height}")
    return x0, y0, x1, y1


def check_outline(polygon: Sequence[float], height: int, width: int, where: str) -> None:
    """Refuses a polygon [x, y, x, y, ...] that leads more than an image's size out of its image.

    It is a mistake, and drawing it would take memory for the whole way.
    """
    for values, size in ((polygon[0::2], width), (polygon[1::2], height)):
        far = next((value for value in values if not -size <= value <= 2 * size), None)
        if far is not None:
            raise InputError(f"{where}: {far:g} lies far outside of the image of {width} x {height} (width, height)")


def checked_rle(rle: Any, height: int, width: int, where: str) -> tuple[Box, RLE]:
    """Returns the tight box (x0, y0, x1, y1) and the compressed RLE, its counts as text, of an RLE that comes from a file.

    Args:
        rle: expected to be an RLE, compressed or not.
        height: height of its image in pixels.
        width: width of its image in pixels.
        where: the file, and the record in it, that has the RLE; it begins the error message.

    Raises:
        InputError: the RLE is broken, of another size than its image, or empty.
    """
    try:
        checked = with_text_counts(check_rle(rle, height, width))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    box = rle_box(checked)
    if not any(box):
        raise InputError(f"{where}: the mask has no pixel")
    return box, checked


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Returns ``function`` of every item, in their order; for functions that read files."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))
