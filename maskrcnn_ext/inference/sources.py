"""What to predict: files, folders, globs, lists of paths and data sets as items that know how they are read and what to call them."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.formats.reading import IMAGE_SUFFIXES
from maskrcnn_ext.errors import InputError

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".dcm", ".dicom")
_CAMERA = "camera:"


@dataclass(frozen=True)
class Item:
    """One image to predict.

    Attributes:
        key: where it is from and in which state, for a journal: a file that changes is another item.
        name: what its outputs are called, a relative path without suffix that no other item has.
        image_id: in results files.
        image: what :meth:`maskrcnn_ext.inference.predictor.Predictor.pixels` takes.
        file_name: that ``images.json`` tells.
    """

    key: str
    name: str
    image_id: Any
    image: Any = field(repr=False)
    file_name: str


@dataclass(frozen=True)
class Inputs:
    """What the user gave.

    Attributes:
        items: the images, those of the inputs in their order; within a folder or glob in natural order (``2.png`` before ``10.png``).
        videos: files, and numbers of cameras.
        data: the name of the data set that the items are, else None.
    """

    items: list[Item]
    videos: list[str | int]
    data: str | None = None


def find_inputs(given: Sequence[str], *, stdin: Iterable[str] = (), outputs: Path | None = None) -> Inputs:
    """Finds what to predict; no image is opened.

    Args:
        given: files, folders (with all images below them but what is hidden or behind a link), globs (``**`` for any number of
            folders), videos, ``camera:0``, ``-`` for paths on stdin, or one data set: a name, or a string such as
            ``coco:annotations.json@images``.
        stdin: lines that each are a path; one that is not there is an item that cannot be read.
        outputs: a folder that is left out where it lies below one that is given.

    Raises:
        InputError: one is none of these, holds no image, or a data set is not alone.
    """
    files: dict[str, None] = {}  # an image that is given twice is predicted once
    videos: list[str | int] = []
    for text in given:
        if text == "-":
            files.update(dict.fromkeys(line.rstrip("\r\n") for line in stdin if line.strip()))
        elif text.startswith(_CAMERA) and text.removeprefix(_CAMERA).isdecimal():
            videos.append(int(text.removeprefix(_CAMERA)))
        elif text.lower().endswith(VIDEO_SUFFIXES) and Path(text).is_file():
            videos.append(text)
        elif Path(text).is_file():
            files[text] = None
        elif Path(text).is_dir():
            files.update(dict.fromkeys(_below(Path(text), outputs)))
        elif glob.has_magic(text):
            found = [file for file in sorted(glob.glob(text, recursive=True), key=natural) if Path(file).is_file()]  # noqa: PTH207
            if not found:
                raise InputError(f"{text}: no file matches it")
            files.update(dict.fromkeys(found))
        else:
            records = _data_set(text)
            if len(given) > 1:
                raise InputError(f"{text} is a data set, whose images have ids of their own: predict it alone")
            return Inputs(_items([(record, record["image_id"]) for record in records]), [], text)
    if not files and not videos:
        raise InputError("stdin names no image: give one path a line")
    records = [{"file_name": file} for file in files]
    return Inputs(_items([(record, number) for number, record in enumerate(records, start=1)]), videos)


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Returns a key that sorts texts with the numbers in them as numbers."""
    return [
        (False, int(part), "") if part.isdecimal() else (True, 0, part.casefold()) for part in re.split(r"(\d+)", text)
    ]


def _below(folder: Path, outputs: Path | None) -> list[str]:
    """The images below a folder, in natural order."""
    left_out = outputs.resolve() if outputs else None
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name).resolve() != left_out]
        found += [
            str(Path(place, name))
            for name in names
            if name.lower().endswith(_SUFFIXES) and not name.startswith(".")  # "._name.jpg" is macOS's, and no image
        ]
    if not found:
        raise InputError(f"{folder}: no image below it (expected {', '.join(_SUFFIXES)})")
    return sorted(found, key=natural)


def _data_set(text: str) -> list[dict[str, Any]]:
    from maskrcnn_ext.data.registry.catalog import get_dataset_dicts
    from maskrcnn_ext.data.registry.resolve import ensure_registered

    try:
        ensure_registered(text)
    except InputError as error:
        raise InputError(f"{text}: no such file or folder, and {error}") from error
    return get_dataset_dicts(text, filter_empty=False)


def _items(records: Sequence[tuple[dict[str, Any], Any]]) -> list[Item]:
    parts = ("window", "slice", "axis", "level")
    items = []
    for (record, image_id), name in zip(records, _names([record["file_name"] for record, _ in records]), strict=True):
        image = {key: record[key] for key in ("file_name", *parts) if key in record}
        part = {key: record[key] for key in parts if key in record}
        file = str(record["file_name"])
        items.append(Item(f"{state_of(file)}{part or ''}", name, image_id, image, file))
    return items


def state_of(file: str) -> str:
    """Returns a file's absolute path, size in bytes and time of the last change."""
    try:
        status = Path(file).stat()
    except OSError:  # one that is not there fails when it is read; one of PathManager's is not on this machine
        return file
    return f"{os.path.abspath(file)}|{status.st_size}|{status.st_mtime_ns}"  # noqa: PTH100, no link is followed


def _names(files: Sequence[str]) -> Iterator[str]:
    """Paths below the deepest folder of all files, without suffixes; with them, and a number, where two would be the same."""
    paths = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100
    top = os.path.commonpath({str(path.parent) for path in paths}) if paths else ""
    relative = [path.relative_to(top) for path in paths]
    stems = Counter(str(path.with_suffix("")).casefold() for path in relative)
    taken: set[str] = set()
    for path in relative:
        stem = path.with_suffix("")
        name = path.as_posix() if stems[str(stem).casefold()] > 1 else stem.as_posix()
        unique, number = name, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        yield unique
