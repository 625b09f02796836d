"""Images and their labels: two files, or two folders whose files have equal names but for the suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskrcnn_ext.data.formats.reading import list_images
from maskrcnn_ext.errors import InputError


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder that have one of the suffixes, by stem, sorted.

    Raises:
        InputError: there are none, or two with one stem.
    """
    found = list_images(folder, suffixes)
    if not found:
        raise InputError(f"{folder}: no file ends with {' or '.join(suffixes)}")
    return found


def pair_files(
    images: Path, labels: Path, image_suffixes: Sequence[str], label_suffixes: Sequence[str]
) -> list[tuple[Path, Path]]:
    """Finds the labels of every image; labels without an image are not looked at.

    Args:
        images: a file, or a folder of files.
        labels: a file, or the folder of the files with the images' names.
        image_suffixes: how the images in a folder end, in lower case with the dot.
        label_suffixes: how the labels in a folder end.

    Returns:
        (image, labels) each, in the order of the images' names.

    Raises:
        InputError: one is a file and the other a folder, a folder without images, or an image without labels.
    """
    if images.is_file() and labels.is_file():
        return [(images, labels)]
    if not (images.is_dir() and labels.is_dir()):
        raise InputError(f"{images} and {labels}: expected two files or two folders")
    found = files_by_stem(labels, label_suffixes)
    pairs = []
    for stem, image in files_by_stem(images, image_suffixes).items():
        if stem not in found:
            raise InputError(f"{image}: has no labels, expected {labels / stem}{' or '.join(label_suffixes)}")
        pairs.append((image, found[stem]))
    return pairs
