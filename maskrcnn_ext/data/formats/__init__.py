"""Annotation formats on disk, one a file. Every format reads into the same plain records and needs neither torch nor Detectron2.

The module ``<format>`` defines ``FORMAT``, a :class:`Format`: the function that reads it and the options that it takes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.errors import InputError

# Names alone: importing every format would import every reader's packages.
FORMATS = (
    "bdd100k",
    "cityscapes",
    "coco",
    "coco_panoptic",
    "csv_boxes",
    "csv_masks",
    "cvat",
    "dicom",
    "dsb2018",
    "geo",
    "kitti",
    "kitti_mots",
    "label_image",
    "label_studio",
    "labelme",
    "nifti",
    "object_masks",
    "openimages",
    "supervisely",
    "via",
    "voc",
    "wider_face",
    "yolo",
)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or math.isfinite(value)  # a large integer is no float


def _is_list(value: Any, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes) and all(map(is_item, value))


Kind = Literal[
    "file", "folder", "path", "function", "text", "texts", "number", "whole number", "numbers", "switch", "names"
]
_PATH: tuple[str, Callable[[Any], bool]] = ("a path", lambda value: isinstance(value, str | os.PathLike))
# Kind of an option -> the name of its values in messages, and the test of a value.
_KINDS: dict[Kind, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("file", "folder", "path"), _PATH),
    "function": ("a function: register the data set in Python", callable),
    "text": ("a text", lambda value: isinstance(value, str)),
    "texts": ("a list of texts", lambda value: _is_list(value, lambda item: isinstance(item, str))),
    "number": ("a number", _is_number),
    "whole number": ("a whole number", lambda value: _is_number(value) and isinstance(value, Integral)),
    "numbers": ("a list of numbers", lambda value: _is_list(value, _is_number)),
    "switch": ("true or false", lambda value: isinstance(value, bool)),
    "names": (
        "a mapping of numbers to class names",
        lambda value: (
            isinstance(value, Mapping) and all(name is None or isinstance(name, str) for name in value.values())
        ),
    ),
}


@dataclass(frozen=True)
class Option:
    """One keyword of a format's read function, such as ``json=`` of "coco".

    Attributes:
        name: the keyword.
        meaning: its meaning, in a few words.
        kind: "file", "folder", or "path" for either; "function" for a callable, which neither a string nor a YAML file can hold; "names"
            for a mapping of numbers to class names or None.
        required: whether the format cannot be read without it.
    """

    name: str
    meaning: str
    kind: Kind
    required: bool = False

    @property
    def is_path(self) -> bool:
        """Whether the value is a file or folder, looked up below the folder of the data sets."""
        return self.kind in ("file", "folder", "path")

    def parse(self, text: str) -> Any:
        """Returns the value of a text such as ``species``, ``a,b``, ``512`` or ``true``.

        Raises:
            InputError: the text is no such value, or the option is a function.

        Example:
            >>> Option("tile", "side of a tile", "whole number").parse("512"), Option("ignore", "numbers", "numbers").parse("3,255")
            (512, [3, 255])
        """
        value: Any = text
        if self.kind == "texts":
            value = text.split(",")
        elif self.kind == "numbers":
            value = [_json_or_text(item) for item in text.split(",")]
        elif self.kind in ("number", "whole number", "switch", "names"):
            value = _json_or_text(text)
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Checks the type of a value.

        Raises:
            InputError: it is not of the option's kind.

        Example:
            >>> Option("tile", "side of a tile", "whole number").check(512.5)
            Traceback (most recent call last):
            maskrcnn_ext.errors.InputError: `tile` is 512.5, expected a whole number
        """
        expected, is_valid = _KINDS[self.kind]
        if not is_valid(value):
            raise InputError(f"`{self.name}` is {value!r:.100}, expected {expected}")


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@dataclass(frozen=True)
class Format:
    """Describes one annotation format to everything that registers, reads or hashes a data set.

    Attributes:
        name: what ``format=`` and the prefix of ``coco:a.json@images`` call it.
        description: the format in one line.
        read: ``read(classes=None, **options)`` returns the records. If `lists_faults`, it also takes ``faults=None``: a list that gets the
            message of each fault, while the rest is read; None to raise the first.
        options: the keywords of `read` other than ``classes``.
        shorthand: the options that a string such as ``coco:a.json@images`` sets, in its order.
        split_option: the option that picks a split; None if a data set of this format is one split.
        default_split: the split that is read if none is chosen; None if that is all of the data.
        list_splits: returns the names of the splits, from the path of the first option; None if they are not listed in a file.
        extra: the extra of this package that reading needs; None if it needs none.
        lists_faults: whether `read` can list all faults of the files.
        crowd_option: the option, as a string has it, that reads crowds as objects; None if crowds of this format are groups of objects.
    """

    name: str
    description: str
    read: Callable[..., DataSet]
    options: tuple[Option, ...]
    shorthand: tuple[str, ...]
    split_option: str | None = None
    default_split: str | None = None
    list_splits: Callable[[Path], list[str]] | None = None
    extra: str | None = None
    lists_faults: bool = False
    crowd_option: str | None = None

    def option(self, name: str) -> Option | None:
        """Returns the option of a name; None if the format has no such option."""
        return next((option for option in self.options if option.name == name), None)

    @property
    def usage(self) -> str:
        """The string that names a data set of this format, such as ``coco:JSON@IMAGES`` or ``yolo:YAML[@SPLIT]``."""
        split = self.string_split
        places = "@".join(self.shorthand).upper()
        return f"{self.name}:{places}" + (f"[@{split.name.upper()}]" if split else "")

    @property
    def string_split(self) -> Option | None:
        """The option that picks a split, if a string can hold it."""
        found = self.option(self.split_option) if self.split_option else None
        return None if found is None or found.kind == "function" else found


def get_format(name: str) -> Format:
    """Returns the record of a format; imports its module.

    Raises:
        InputError: there is no such format.

    Example:
        >>> get_format("coco").usage
        'coco:JSON@IMAGES'
    """
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}, expected one of {', '.join(FORMATS)}")
    found: Format = import_module(f"{__name__}.{name}").FORMAT
    return found
