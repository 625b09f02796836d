"""Annotation formats on disk, one a file. Every format reads into the same plain records and needs neither torch nor Detectron2.

The module ``<format>`` defines ``FORMAT``, a :class:`Format`: the function that reads it and the options that it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.errors import InputError

# Names alone: importing every format would import every reader's packages.
FORMATS = (
    "bdd100k",
    "cityscapes",
    "coco",
    "dicom",
    "dsb2018",
    "geo",
    "kitti_mots",
    "label_image",
    "labelme",
    "nifti",
    "openimages",
    "via",
    "voc",
    "yolo",
)


@dataclass(frozen=True)
class Option:
    """One keyword of a format's read function, such as ``json=`` of "coco".

    Attributes:
        name: the keyword.
        meaning: what it is, in a few words.
        kind: "file", "folder", or "path" for either; "function" for a callable, which a YAML file cannot hold; "value" for the rest.
        required: whether the format cannot be read without it.
    """

    name: str
    meaning: str
    kind: Literal["file", "folder", "path", "function", "value"] = "value"
    required: bool = False

    @property
    def is_path(self) -> bool:
        """Whether the value is a file or folder, looked up below the folder of the data sets."""
        return self.kind in ("file", "folder", "path")


@dataclass(frozen=True)
class Format:
    """Describes one annotation format to everything that registers, reads or hashes a data set.

    Attributes:
        name: what ``format=`` and the prefix of ``coco:a.json@images`` call it.
        description: the format in one line.
        read: ``read(classes=None, **options)`` returns the records.
        options: the keywords of `read` other than ``classes``.
        shorthand: the options that a string such as ``coco:a.json@images`` sets, in its order.
        split_option: the option that picks a split; None if a data set of this format is one split.
        extra: the extra of this package that reading needs; None if it needs none.
    """

    name: str
    description: str
    read: Callable[..., DataSet]
    options: tuple[Option, ...]
    shorthand: tuple[str, ...]
    split_option: str | None = None
    extra: str | None = None

    def option(self, name: str) -> Option | None:
        """Returns the option of a name; None if the format has no such option."""
        return next((option for option in self.options if option.name == name), None)

    @property
    def usage(self) -> str:
        """The string that names a data set of this format, such as ``coco:JSON@IMAGES``."""
        return f"{self.name}:{'@'.join(self.shorthand).upper()}"


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
