"""Finds files: all of a folder, those of one stem, and those that an annotation file names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES
from maskrcnn_ext.errors import InputError

_LONGEST_NAME = 255  # bytes, the limit of file systems
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # of macOS and Windows


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the files and folders that match a pattern, sorted, without hidden ones and those that operating systems leave.

    Archives made on a Mac hold a ``._a.xml`` beside every ``a.xml``, and notebooks leave copies in ``.ipynb_checkpoints``.
    """
    found = ((path, path.relative_to(folder).parts) for path in folder.glob(pattern))
    return sorted(path for path, parts in found if not any(part.startswith(".") or part in _LITTER for part in parts))


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
    """Returns the file or folder below `folder` that most of the last parts of a path name; None if no file matches.

    Args:
        folder: to look in.
        path: usually of another machine, so that only its last parts can be valid here.
        least: the number of parts that must be valid.
    """
    parts = [part for part in path.relative_to(path.anchor).parts if part != ".."]
    places = (folder.joinpath(*parts[start:]) for start in range(len(parts) - least + 1))
    return next((place for place in places if os.path.exists(place)), None)  # noqa: PTH110, no error for a long name


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
