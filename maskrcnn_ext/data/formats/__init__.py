"""On-disk annotation formats, one a file. Each reads into the same plain records; none imports Detectron2.

The module ``<format>`` has ``read_<format>(first: Path, second: Path, ..., *, classes=None, ...) -> DataSet``. Its positional
parameters are the files and folders that a string such as ``via:/data/a.json@/data/images`` names, in that order; its keywords are
what :func:`maskrcnn_ext.data.register` takes for the format.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.errors import InputError

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


def find_reader(format: str) -> Callable[..., DataSet]:
    """Returns the function that reads a format.

    Raises:
        InputError: there is no such format.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}")
    reader: Callable[..., DataSet] = getattr(import_module(f"{__name__}.{format}"), f"read_{format}")
    return reader
