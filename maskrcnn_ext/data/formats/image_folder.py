"""Finds the images of annotations whose names are not quite those of the files."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

from maskrcnn_ext.data.formats.image_files import is_image


class ImageFolder:
    """A folder of images, in which files are found by the last parts of their paths, in any case, and without their suffix.

    Each folder is listed once, when it is asked for. Folders below are searched for a name if no path matches.

    Example:
        >>> _ = (tmp_path / "A.JPG").write_bytes(b"")
        >>> ImageFolder(tmp_path).find(PureWindowsPath("old/images/a.jpg")).name
        'A.JPG'
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, set[str]] = {}
        self._names: dict[str, dict[str, list[str]]] = {}
        self._all_names: dict[str, list[str]] | None = None

    def has(self, file: str) -> bool:
        """Returns whether a file exists."""
        folder, name = os.path.split(file)
        return name in self._list(folder)

    def find(self, path: PureWindowsPath) -> Path | None:
        """Returns the file that a path means: see :meth:`find_by_parts`; else the only one in or below the folder that has its name, or its
        name with the suffix of another kind of image. None if no file matches, or several do.
        """
        return self.find_by_parts(path) or self._find_by_name(path.name)

    def find_by_parts(self, path: PureWindowsPath) -> Path | None:
        """Returns the file that most of the last parts of a path name; None if no file matches, or if several differ in their case only."""
        parts = [part for part in path.relative_to(path.anchor).parts if part != ".."]
        return next(filter(None, (self._below(parts[start:]) for start in range(len(parts)))), None)

    def _find_by_name(self, name: str) -> Path | None:
        names = self._all_names
        if names is None:
            names = {}
            for folder, _, files in os.walk(self.folder):
                for file in files:
                    if is_image(Path(file)):
                        for key in {file.casefold(), Path(file).stem.casefold()}:
                            names.setdefault(key, []).append(os.path.join(folder, file))  # noqa: PTH118, faster than pathlib
            self._all_names = names  # whole, as threads share it
        keys = [name.casefold(), *([Path(name).stem.casefold()] if is_image(Path(name)) else [])]
        found = next((names[key] for key in keys if key in names), [])
        return Path(found[0]) if len(found) == 1 else None

    def _below(self, parts: list[str]) -> Path | None:
        place = str(self.folder)
        for part in parts:
            found = [part] if part in self._list(place) else self._in_any_case(place).get(part.casefold(), [])
            if len(found) != 1:
                return None
            place = os.path.join(place, found[0])  # noqa: PTH118, faster than pathlib
        return Path(place)

    def _list(self, folder: str) -> set[str]:
        """Returns the names in a folder; none if it is missing."""
        if folder not in self._files:
            try:
                self._files[folder] = set(os.listdir(folder))  # noqa: PTH208, names only
            except (OSError, ValueError):  # ValueError for a null character
                self._files[folder] = set()
        return self._files[folder]

    def _in_any_case(self, folder: str) -> dict[str, list[str]]:
        """Returns the names in a folder by the texts that may name them: in lower case, with and without the suffix of an image."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for name in self._list(folder):
                names.setdefault(name.casefold(), []).append(name)
                if is_image(Path(name)):
                    names.setdefault(Path(name).stem.casefold(), []).append(name)
            self._names[folder] = names  # whole, as threads share it
        return self._names[folder]
