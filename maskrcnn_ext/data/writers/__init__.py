"""Output formats, one per file. Each writes the records that all readers return.

The module ``<format>`` has ``write_<format>(data: DataSet, folder: Path, *, link: bool) -> Counter[str]``. It fills an empty folder,
with copies of the images or links to them, and returns the contents that the format cannot express: a description and its count.
"""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Protocol

from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.errors import InputError

WRITERS = (
    "coco",
    "yolo",
    "labelme",
    "label_image",
    "cvat",
    "label_studio",
    "supervisely",
    "geojson",
    "coco_panoptic",
)


class Writer(Protocol):
    def __call__(self, data: DataSet, folder: Path, *, link: bool) -> Counter[str]: ...


def find_writer(format: str) -> Writer:
    """Returns the function that writes a format.

    Raises:
        InputError: there is no such format.
    """
    if format not in WRITERS:
        raise InputError(f"no writer for {format!r}, expected one of {', '.join(WRITERS)}")
    writer: Writer = getattr(import_module(f"{__name__}.{format}"), f"write_{format}")
    return writer
