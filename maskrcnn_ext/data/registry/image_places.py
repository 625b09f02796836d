"""Finds the folder of the images that a file of annotations names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

from maskrcnn_ext.data.formats.file_names import list_files, path_below
from maskrcnn_ext.data.formats.image_folder import ImageFolder
from maskrcnn_ext.errors import InputError

# Images whose existence is tested to find their folder; some may be missing.
TRIED = 20


def images_folder(file: Path, images: list[Any]) -> Path:
    """Returns the folder that has some of the images of a COCO file, given its records of images; see :func:`folder_of`."""
    return folder_of(file, [image.get("file_name") for image in images[:TRIED] if isinstance(image, dict)])


def folder_of(file: Path, names: list[Any]) -> Path:
    """Returns the folder that has the images that a file names: the first with more than half of them, else that with most.

    It is the folder of the file, its parent, a folder in one of these that is called ``images`` or like a part of the file's name, such as
    its split, or else any folder below. If most of them lie in other folders below, it is the folder above all of them.
    If none has them, it is the first that has them by the last parts of their paths, in any case.
    """
    here = file.parent
    places = [here, here / "images", here.parent, here.parent / "images"]
    words = [file.stem.rpartition("_")[2], *re.split(r"[_.\- ]", file.stem)]  # of annotations/instances_val2017.json
    near = [*places, *(place / word for word in dict.fromkeys(filter(None, words)) for place in places)]
    found = folder_with(names, near)
    path = PureWindowsPath(names[0]) if names and isinstance(names[0], str) else PureWindowsPath()
    if found is None and path.name:
        files = list_files(here.parent if here.name == "annotations" else here, "**/*")
        below = [file for file in files if file.name.casefold() == path.name.casefold()]
        exact = [file.parents[len(path.parts) - 1] for file in below if file.parts[-len(path.parts) :] == path.parts]
        found = folder_with(names, exact)
        if found is not None and 2 * sum(_exists(found, name) for name in names) < len(names):
            stems = {PureWindowsPath(name).name.casefold() for name in names if isinstance(name, str)}
            parents = {str(file.parent) for file in files if file.name.casefold() in stems}
            found = Path(os.path.commonpath(parents))
    if found is None and path.name:
        loose = (folder for folder in near if ImageFolder(folder).find_by_parts(path))
        found = next(loose, below[0].parent if below else None)
    return found or here


def folder_with(names: list[Any], folders: Iterable[Path]) -> Path | None:
    """Returns the first folder with more than half of the files, else that with most of them; None if none has one."""
    best, most = None, 0
    for folder in folders:
        number = sum(_exists(folder, name) for name in names)
        if 2 * number > len(names):
            return folder
        if number > most:
            best, most = folder, number
    return best


def _exists(folder: Path, name: Any) -> bool:
    try:
        return path_below(folder, name, "").is_file()
    except InputError:
        return False
