"""Finds the images to predict: files, folders, globs, lists of paths and data sets become a list of :class:`InputImage`."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.files import shorten_name
from maskrcnn_ext.common.text import natural_sort_key, short_list
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".dcm", ".dicom")
_CAMERA = "camera:"
# Bytes of a name, so that it fits a file system's 255 with a number and a suffix such as ".geojson".
_LONGEST_NAME = 235
_OUTPUT_SUFFIXES = (".png", ".tif", ".geojson")
# Keys of a Detectron2 record that select a part of its file.
_PART_KEYS = ("window", "slice", "axis", "level")


@dataclass(frozen=True)
class InputImage:
    """One image or video frame to predict.

    Attributes:
        key: identifies the file and its state in a journal; a file that changes gets another key.
        name: name of its outputs, a relative path without suffix; unique among the inputs.
        image_id: its id in results files.
        image: what :meth:`maskrcnn_ext.inference.predictor.Predictor.pixels` accepts.
        file_name: its file name in ``images.json`` and in messages.
    """

    key: str
    name: str
    image_id: Any
    image: Any = field(repr=False)
    file_name: str


@dataclass(frozen=True)
class Inputs:
    """All inputs of a prediction.

    Attributes:
        items: the images, in the order of the arguments; within a folder or glob in natural order (``2.png`` before ``10.png``).
        videos: video files and camera numbers.
        data: name of the data set if the items are one, else None.
    """

    items: list[InputImage]
    videos: list[str | int]
    data: str | None = None


def find_inputs(given: Sequence[str], *, stdin: Iterable[str] = (), outputs: Path | None = None) -> Inputs:
    """Finds the images and videos to predict. Opens no image.

    Args:
        given: files; folders, searched recursively except hidden entries and links; globs (``**`` for any number of folders); videos;
            ``camera:0``; ``-`` for paths on stdin; or one data set: its name, or a string such as ``coco:annotations.json@images``.
        stdin: lines, one path each. A missing file becomes an item that fails when it is read.
        outputs: a folder to leave out when it is below a given folder.

    Raises:
        InputError: an argument is of another kind or has no images, or a data set is given together with other inputs.

    Example:
        >>> for name in ("b10.png", "b2.png"):
        ...     (tmp_path / name).touch()
        >>> [item.name for item in find_inputs([str(tmp_path)]).items]
        ['b2', 'b10']
    """
    files: dict[str, None] = {}  # an ordered set: a file that is given twice is predicted once
    videos: list[str | int] = []
    for text in given:
        if not text.strip():
            raise InputError("an INPUT is empty: name a file, a folder, a glob or a data set")
        if text == "-":
            files.update(dict.fromkeys(line.rstrip("\r\n") for line in stdin if line.strip()))
        elif text.startswith(_CAMERA) and text.removeprefix(_CAMERA).isdecimal():
            videos.append(int(text.removeprefix(_CAMERA)))
        elif text.lower().endswith(VIDEO_SUFFIXES) and Path(text).is_file():
            videos.append(text)
        elif Path(text).is_file():
            files[text] = None
        elif Path(text).is_dir():
            files.update(dict.fromkeys(_list_images(Path(text), outputs)))
        elif glob.has_magic(text):
            found = [
                file
                for file in sorted(glob.glob(text, recursive=True), key=natural_sort_key)  # noqa: PTH207
                if Path(file).is_file()
            ]
            if not found:
                raise InputError(f"{text}: no file matches it")
            files.update(dict.fromkeys(found))
        else:
            records = _read_data_set(text)
            if len(given) > 1:
                raise InputError(
                    f"{text} is a data set, whose images have their own ids: predict it in a run by itself"
                )
            return Inputs(_make_items([(record, record["image_id"]) for record in records]), [], text)
    if not files and not videos:
        raise InputError("stdin has no paths of images: write one path a line")
    records = [{"file_name": file} for file in files]
    return Inputs(_make_items([(record, number) for number, record in enumerate(records, start=1)]), videos)


def file_state(file: str) -> str:
    """Returns a file's absolute path, size in bytes and modification time; of a missing or remote file, its name."""
    try:
        status = Path(file).stat()
    except OSError:  # a missing file fails when it is read; PathManager downloads a remote one then
        return file
    return f"{os.path.abspath(file)}|{status.st_size}|{status.st_mtime_ns}"  # noqa: PTH100, links are not resolved


def _list_images(folder: Path, outputs: Path | None) -> list[str]:
    """Returns the images below a folder, in natural order; the log has the number of other files."""
    left_out = outputs.resolve() if outputs else None
    found, others = [], Counter[str]()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(place, name).resolve() != left_out]
        for name in names:
            if name.startswith("."):  # macOS writes metadata into "._name.jpg"
                continue
            if name.lower().endswith(_SUFFIXES):
                found.append(str(Path(place, name)))
            else:
                others[Path(name).suffix.lower() or "without a suffix"] += 1
    if not found:
        raise InputError(f"{folder}: no image below it (expected {', '.join(_SUFFIXES)})")
    if others:
        kinds = short_list(
            [f"{count} {suffix}" for suffix, count in sorted(others.items(), key=lambda item: (-item[1], item[0]))]
        )
        logger.warning("%s: %s: not read as images", folder, kinds)
    return sorted(found, key=natural_sort_key)


def _read_data_set(text: str) -> list[dict[str, Any]]:
    from maskrcnn_ext.data.registry.catalog import get_dataset_dicts
    from maskrcnn_ext.data.registry.resolve import ensure_registered

    try:
        ensure_registered(text)
    except InputError as error:
        raise InputError(f"{text}: no such file or folder, and {error}") from error
    return get_dataset_dicts(text, filter_empty=False)


def _make_items(records: Sequence[tuple[dict[str, Any], Any]]) -> list[InputImage]:
    """Makes an InputImage of each (Detectron2 record, image id)."""
    items = []
    names = _unique_names([record["file_name"] for record, _ in records])
    for (record, image_id), name in zip(records, names, strict=True):
        image = {key: record[key] for key in ("file_name", *_PART_KEYS) if key in record}
        part = {key: record[key] for key in _PART_KEYS if key in record}
        file = str(record["file_name"])
        items.append(InputImage(f"{file_state(file)}{part or ''}", name, image_id, image, file))
    return items


def _unique_names(files: Sequence[str]) -> Iterator[str]:
    """Yields the files' paths relative to their deepest common folder, without suffixes.

    Paths that would be equal keep their suffix, and get a number if they still are.
    """
    paths = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100
    top = os.path.commonpath({str(path.parent) for path in paths}) if paths else ""
    relative = [path.relative_to(top) for path in paths]
    stems = Counter(str(path.with_suffix("")).casefold() for path in relative)
    taken: set[str] = set()
    folders = {str(folder).casefold() for path in relative for folder in path.parents}
    for path in relative:
        stem = path.with_suffix("")
        name = path.as_posix() if stems[str(stem).casefold()] > 1 else stem.as_posix()
        folder, _, last = name.rpartition("/")
        name = f"{folder}/" * bool(folder) + shorten_name(last, _LONGEST_NAME)
        unique, number = name, 1
        # An output of "a" must not be the folder of "a.png/b".
        while unique.casefold() in taken or any(
            f"{unique.casefold()}{suffix}" in folders for suffix in _OUTPUT_SUFFIXES
        ):
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        yield unique
