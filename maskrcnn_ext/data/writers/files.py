"""Helpers of the writers: an output that appears whole or not at all, the images, and progress."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from maskrcnn_ext.common.files import atomic_path, shorten_name
from maskrcnn_ext.common.progress import track
from maskrcnn_ext.data.formats.image_files import IMAGE_ERRORS, IMAGE_SUFFIXES, open_image
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.errors import InputError

_LONGEST_NAME = 235  # bytes, so that a name fits a file system's 255 with a number and a suffix such as ".geojson"


@contextmanager
def staged(target: Path, *, overwrite: bool, sources: Sequence[Path] = ()) -> Iterator[Path]:
    """Yields a temporary path to write; it takes the name of `target` when the block ends without an error.

    Args:
        target: the file or folder to make.
        overwrite: whether an existing one is replaced.
        sources: files that are read: none of them may be, or be in, the target that is replaced.

    Raises:
        InputError: the target exists and is not to be overwritten, contains a source, or cannot be written.
    """
    target = target.absolute()
    if target.exists() or target.is_symlink():
        if not overwrite:
            raise InputError(f"{target} exists already: choose another path, or add --overwrite")
        real = target.resolve()
        source = next((s for s in map(Path.resolve, sources) if s == real or real in s.parents), None)
        if source is not None:
            raise InputError(f"{target} cannot be overwritten: it contains {source}, which is read")
    with atomic_path(target) as partial:
        yield partial


def each_image(data: DataSet, description: str) -> Iterator[ImageRecord]:
    """Yields the records and shows the progress through them."""
    yield from track(data.images, description=description)


def check_plain_images(data: DataSet) -> None:
    """Raises if a record is part of a file, such as a slice of a volume: a copy of the file would be a different image.

    Raises:
        InputError: there is such a record.
    """
    for record in data.images:
        if record.extra:
            part = ", ".join(f"{key} {value}" for key, value in record.extra.items())
            raise InputError(
                f"image {record.image_id!r} is part of {record.file_name} ({part:.80}): save such parts as images first"
            )


def image_names(data: DataSet) -> list[str]:
    """Returns a different file name for each image, so that all fit into one folder, where the readers of all formats find them.

    An image keeps its name if no other has the same stem. Otherwise its folders are put in front, as in ``2024__north__001.jpg``, and
    a number behind if the name is still not unique. A missing suffix is added; a leading dot, backslashes and characters that cannot be
    printed become underscores.
    """
    folder = common_folder(data)
    stems = Counter(Path(record.file_name).stem.casefold() for record in data.images)
    taken: set[str] = set()
    names = []
    for record in data.images:
        path = Path(record.file_name)
        suffix = _image_suffix(path)
        stem = path.name.removesuffix(suffix)
        if stems[path.stem.casefold()] > 1:
            stem = "__".join([*path.absolute().relative_to(folder).parts[:-1], stem])
        stem = "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in stem)
        stem = shorten_name(f"_{stem[1:]}" if stem.startswith(".") else stem, _LONGEST_NAME)
        unique, number = stem, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}_{number}"
        taken.add(unique.casefold())
        names.append(unique + suffix)
    return names


def _image_suffix(file: Path) -> str:
    """Returns the suffix of an image; of one that has none by which readers know it, that of its format."""
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return file.suffix
    try:
        with open_image(file) as image:
            suffix = f".{image.format}".lower()
    except IMAGE_ERRORS:
        return file.suffix
    return suffix if suffix in IMAGE_SUFFIXES else file.suffix


def common_folder(data: DataSet) -> Path:
    """Returns the deepest folder that contains all images."""
    folders = {str(Path(record.file_name).absolute().parent) for record in data.images}
    return Path(os.path.commonpath(folders)) if folders else Path.cwd()


def place_image(record: ImageRecord, target: Path, *, link: bool) -> None:
    """Copies an image, or links to it.

    Raises:
        InputError: the image is missing.
    """
    source = Path(record.file_name).absolute()
    if not source.is_file():
        raise InputError(f"image {record.image_id!r}: no file {source}")
    if link:
        target.symlink_to(source)
    else:
        shutil.copyfile(source, target)
