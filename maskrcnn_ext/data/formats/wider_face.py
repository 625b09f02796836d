"""WIDER FACE (shuoyang1213.me/WIDERFACE; arXiv:1511.06523): boxes of faces, all images in one text such as ``wider_face_train_bbx_gt.txt``.

An entry is the path of an image, the number of its faces, and a row ``x y w h blur expression illumination invalid occlusion pose`` for
each; without faces, the number is 0 and one row of zeros follows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import clip_box, finite
from maskrcnn_ext.data.formats.file_names import path_below
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.data.formats.warnings import Tally
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_FIELDS = 10
_INVALID = 7

# The path of an image, and the number of the line and the fields of each row below it.
_Entry: TypeAlias = tuple[str, list[tuple[int, list[str]]]]


def read_wider_face(
    annotations: Path, images: Path, *, classes: Sequence[str] | None = None, faults: list[str] | None = None
) -> DataSet:
    """Reads WIDER FACE.

    Args:
        annotations: the text.
        images: the folder of the events' folders of images, such as ``WIDER_train/images``.
        classes: the name of the one class; "face" when not given.
        faults: gets the faults of images and rows, which are left out; None to raise the first.

    Returns:
        One record per image, in the order of the text; ids are paths without suffix. Objects are boxes without a mask. A face that is
        marked invalid, because it cannot be recognised, is a crowd. Boxes without area are left out, with a warning that counts them.

    Raises:
        InputError: an image is missing, or a number or a row is broken.
    """
    names = list(classes or ("face",))
    if len(names) != 1:
        raise InputError(f"{annotations}: has one class, and `classes` are {', '.join(names)}")
    tally, flat = Tally(), list[str]()

    def read(entry: _Entry) -> ImageRecord:
        name, rows = entry
        image = path_below(images, name, f"{annotations}: image")
        record = ImageRecord(str(image), name.rpartition(".")[0], *image_size(image, str(annotations)))
        for number, fields in _faces(rows, name, annotations, faults):
            with collected(faults):
                _add(fields, record, tally, flat, f"{annotations}, line {number}")
        return record

    records = in_threads(read, _entries(annotations), faults)
    tally.warn(annotations)
    if flat:
        logger.warning("%s: left out %s without area, such as %s", annotations, plural(len(flat), "face"), min(flat))
    return DataSet(names, records)


def _entries(file: Path) -> list[_Entry]:
    entries: list[_Entry] = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if "/" in line or "." in fields[-1]:  # a path
            entries.append((line.strip(), []))
        elif not entries:
            raise InputError(f"{file}, line {number}: expected the path of an image")
        else:
            entries[-1][1].append((number, fields))
    return entries


def _faces(
    rows: list[tuple[int, list[str]]], name: str, file: Path, faults: list[str] | None
) -> list[tuple[int, list[str]]]:
    """Returns the rows of the faces of an image, whose number precedes them."""
    count = rows[0][1][0] if rows and len(rows[0][1]) == 1 else ""
    found = rows[1:]
    if count == "0" and len(found) == 1 and set(found[0][1]) == {"0"}:
        found = []
    with collected(faults):
        if count != str(len(found)):
            raise InputError(
                f"{file}: image {name}: {plural(len(found), 'row')} after the number of faces {count!r:.20}"
            )
    return found


def _add(fields: list[str], record: ImageRecord, tally: Tally, flat: list[str], where: str) -> None:
    if len(fields) != _FIELDS:
        raise InputError(f"{where}: {plural(len(fields), 'field')}, expected {_FIELDS}: x, y, w, h, blur, ...")
    x, y, width, height = finite(fields[:4], where)
    if width <= 0 or height <= 0:
        flat.append(where)
        return
    box = clip_box([x, y, x + width, y + height], record.height, record.width, where, tally.clipped)
    record.annotations.append(Annotation(0, box, crowd=fields[_INVALID] == "1"))


FORMAT = Format(
    name="wider_face",
    description="WIDER FACE: boxes of faces, one text for all images",
    read=read_wider_face,
    options=(
        Option("annotations", "the text, such as `wider_face_train_bbx_gt.txt`", "file", required=True),
        Option("images", "the images, such as `WIDER_train/images`", "folder", required=True),
    ),
    shorthand=("annotations", "images"),
    lists_faults=True,
)
