"""Helpers of the readers for files, names and numbers. Their errors name the fault and its place."""

from __future__ import annotations

import csv
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from json import loads
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar
from xml.etree import ElementTree

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from maskrcnn_ext.common.encodings import decode
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import RLE, Box, check_rle, rle_box, with_text_counts

Item = TypeVar("Item")
Result = TypeVar("Result")

# What Pillow reads as an image of a scene.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
# Pillow releases the interpreter lock while it decodes, and opening files waits for the disk, so a few threads help.
_THREADS = 8
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
_ROUNDING = 1e-3  # pixels; a box that extends beyond its image by less is not counted
_LONGEST_NAME = 255  # bytes, the limit of file systems
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # of macOS and Windows
_DECLARATION = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)", re.ASCII)


def read_text(file: Path) -> str:
    """Returns the text of a file in any Unicode encoding, without a byte order mark.

    Raises:
        InputError: the file is missing, or has another encoding.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    return decode(content, file)


def read_json(file: Path) -> Any:
    """Returns the content of a JSON file in any Unicode encoding."""
    text = read_text(file)
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a JSON file ({error})") from error


def read_rows(file: Path) -> list[list[str]]:
    """Returns the rows of a CSV file that are not empty, the header first.

    Raises:
        InputError: it cannot be read, or a field is too long.
    """
    try:
        return [row for row in csv.reader(read_text(file).splitlines()) if row]
    except csv.Error as error:
        raise InputError(f"{file}: not a CSV file ({error})") from error


def read_xml(file: Path) -> ElementTree.Element:
    """Returns the root of an XML file in any encoding that it declares or that is Unicode."""
    try:
        content = file.read_bytes()
        declared = _DECLARATION.match(content)
        # The parser itself knows no encodings of Asia.
        return ElementTree.fromstring(content if declared is None else content.decode(declared[1].decode("ascii")))
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, ElementTree.ParseError) and not _DECLARATION.match(content):
            decode(content, file)  # raises an error that names the encoding, if it is not Unicode
        raise InputError(f"{file}: not a readable XML file ({error})") from error


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


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the files and folders that match a pattern, sorted, without hidden ones and those that operating systems leave.

    Archives made on a Mac hold a ``._a.xml`` beside every ``a.xml``, and notebooks leave copies in ``.ipynb_checkpoints``.
    """
    found = ((path, path.relative_to(folder).parts) for path in folder.glob(pattern))
    return sorted(path for path, parts in found if not any(part.startswith(".") or part in _LITTER for part in parts))


def is_image(file: Path) -> bool:
    """Returns whether a file has the suffix of an image that Pillow reads."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def stem_of(file: Path, suffixes: Sequence[str]) -> str | None:
    """Returns the name without its suffix, such as ``.nii.gz``, or None if it ends with none of `suffixes`."""
    return next((file.name[: -len(suffix)] for suffix in suffixes if file.name.lower().endswith(suffix)), None)


def list_images(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Returns the images of a folder by their stems, sorted.

    Raises:
        InputError: the folder is missing, or two images have the same stem.
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


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Returns the files of a folder that have one of the suffixes, by stem, sorted.

    Raises:
        InputError: there is no such file, or two have the same stem.
    """
    found = list_images(folder, suffixes)
    if not found:
        raise InputError(f"{folder}: no file ends with {' or '.join(suffixes)}")
    return found


def pair_files(
    images: Path, labels: Path, image_suffixes: Sequence[str], label_suffixes: Sequence[str]
) -> list[tuple[Path, Path]]:
    """Pairs each image with its labels: the file with the same stem. Labels without an image are ignored.

    Args:
        images: a file or a folder.
        labels: a file or a folder.
        image_suffixes: suffixes of images in a folder, in lower case with the dot.
        label_suffixes: suffixes of labels in a folder.

    Returns:
        (image, labels) pairs, in the order of the images' names.

    Raises:
        InputError: one is a file and the other a folder, there are no images, or an image has no labels.
    """
    if images.is_file() and labels.is_file():
        return [(images, labels)]
    if not (images.is_dir() and labels.is_dir()):
        raise InputError(f"{images} and {labels}: expected two files or two folders")
    found = files_by_stem(labels, label_suffixes)
    pairs = []
    for stem, image in files_by_stem(images, image_suffixes).items():
        stem = stem if stem in found else stem.removesuffix("_0000")  # nnU-Net's first channel
        if stem not in found:
            raise InputError(f"{image}: has no labels, expected {labels / stem}{' or '.join(label_suffixes)}")
        pairs.append((image, found[stem]))
    return pairs


def parse_name(name: Any, where: str) -> PureWindowsPath:
    """Returns a file name from an annotation file, which may have slashes of either kind."""
    path = PureWindowsPath(name) if isinstance(name, str) and "\0" not in name else PureWindowsPath()
    if not path.name or max(len(part.encode("utf-8", "replace")) for part in path.parts) > _LONGEST_NAME:
        raise InputError(f"{where}: {name!r:.100} is not a file name")
    return path


def path_below(folder: Path, name: Any, where: str) -> Path:
    """Returns ``folder / name`` for a name from an annotation file.

    If the name leads out of the folder, it is that of another machine, and its last parts name a file in the folder.

    Raises:
        InputError: the name leads out of the folder, which has no such file.
    """
    path = parse_name(name, where)
    if not path.anchor and ".." not in path.parts:
        return folder / path.as_posix()
    found = find_by_last_parts(folder, path)
    if found is None:
        raise InputError(
            f"{where}: file name {name!r} leads out of {folder}, which has no {path.name}; make it relative to that folder"
        )
    return found


def find_by_last_parts(folder: Path, path: PureWindowsPath, *, least: int = 1) -> Path | None:
    """Returns the file or folder below `folder` that most of the last parts of a path name; None if there is none.

    Args:
        folder: to look in.
        path: usually of another machine, so that only its last parts can be valid here.
        least: the number of parts that must be valid.
    """
    parts = [part for part in path.relative_to(path.anchor).parts if part != ".."]
    places = (folder.joinpath(*parts[start:]) for start in range(len(parts) - least + 1))
    return next((place for place in places if os.path.exists(place)), None)  # noqa: PTH110, no error for a long name


def finite(values: Iterable[Any], where: str) -> list[float]:
    """Returns numbers as floats; raises InputError for anything else, infinities and NaN."""
    values = list(values)
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: expected numbers, found {values!r:.100}") from None
    if not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{where}: expected finite numbers, found {values!r:.100}")
    return numbers


def category_of(name: Any, classes: Sequence[str], where: str) -> int:
    """Returns the index of a class name; raises InputError if it is unknown."""
    if name not in classes:
        raise InputError(f"{where}: class {name!r}, expected one of {', '.join(classes)}")
    return list(classes).index(name)


def clip_box(
    box: Sequence[float], height: int, width: int, where: str, clipped: list[str] | None = None
) -> tuple[float, float, float, float]:
    """Returns the part of a box (x0, y0, x1, y1) inside an image.

    Args:
        box: in pixels.
        height: of the image.
        width: of the image.
        where: the place of the box; it begins the error message.
        clipped: gets `where` if the box extends beyond the image, for a warning.

    Raises:
        InputError: it has no area.
    """
    x0, x1 = (min(max(x, 0.0), float(width)) for x in box[0::2])
    y0, y1 = (min(max(y, 0.0), float(height)) for y in box[1::2])
    if x0 >= x1 or y0 >= y1:
        raise InputError(f"{where}: box (x0, y0, x1, y1) {tuple(box)} has no area in an image of {width} x {height}")
    if clipped is not None and max(abs(a - b) for a, b in zip((x0, y0, x1, y1), box, strict=True)) > _ROUNDING:
        clipped.append(where)
    return x0, y0, x1, y1


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


def check_different(names: Iterable[Any], where: str) -> None:
    """Checks that no two images have the same name, which is their id.

    Raises:
        InputError: a name occurs twice.
    """
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}: {name} occurs twice: keep one of them")
        seen.add(name)


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], faults: list[str] | None = None
) -> list[Result]:
    """Applies a function that reads files to each item in a thread pool; returns the results in order.

    Args:
        function: reads an item.
        items: the items to read.
        faults: see :func:`collected`; items with a fault have no result.
    """

    def read(item: Item) -> list[Result]:
        with collected(faults):
            return [function(item)]
        return []

    with ThreadPoolExecutor(_THREADS) as pool:
        return [result for found in pool.map(read, items) for result in found]


@contextmanager
def collected(faults: list[str] | None) -> Iterator[None]:
    """Adds the message of an InputError that ends the block to `faults`. If that is None, the error passes.

    Example:
        >>> faults = []
        >>> with collected(faults):
        ...     raise InputError("a.txt, line 1: no number")
        >>> faults
        ['a.txt, line 1: no number']
    """
    try:
        yield
    except InputError as error:
        if faults is None:
            raise
        faults.append(str(error))
