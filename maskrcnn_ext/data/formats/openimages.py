"""Reads Open Images V4 to V7 (storage.googleapis.com/openimages/web/download_v7.html): CSVs of boxes and masks.

Coordinates are fractions of the image's size. A row of the mask CSV repeats the box in which the mask was drawn, which links the two.
The resolution of a mask PNG may differ from that of its image.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskrcnn_ext.common.encodings import encoding_error
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import clip_box, finite
from maskrcnn_ext.data.formats.file_names import list_images, path_below
from maskrcnn_ext.data.formats.image_files import image_size, read_pixels
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.warnings import Tally
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_mask

# How far rounding may put a coordinate outside the image, as a fraction of its size.
_TOLERANCE = 1e-2


class _Row(NamedTuple):
    line: int
    label: str
    box: tuple[float, ...]  # x0, y0, x1, y1 as fractions
    group: bool
    mask: str | None


def read_openimages(
    boxes: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    descriptions: Path | None = None,
    masks: Path | None = None,
    mask_images: Path | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads Open Images.

    Args:
        boxes: the CSV of boxes. Only the rows of images that are in ``images`` are read.
        images: the folder of the images, ``<ImageID>.jpg``.
        classes: the classes to read, in the order of the model; objects of other classes are left out. Default: all classes of the
            CSVs, sorted.
        descriptions: the CSV of class names, with rows ``/m/0abc,Name``. Default: the identifiers ``/m/0abc`` are the names.
        masks: the CSV of masks.
        mask_images: the folder of the mask PNGs; needed with ``masks``.
        faults: gets the faults of images and rows, which are left out; None to raise the first.

    Returns:
        One record per image of the folder, sorted by id. Groups (``IsGroupOf``) are crowds. An object without a mask has no segmentation;
        a mask whose box is not among the boxes is a separate object.

    Raises:
        InputError: a CSV is broken or names no image of the folder, an image or mask is unreadable, a class is unknown, or a box has no
            area.
    """
    if (masks is None) != (mask_images is None):
        raise InputError(f"{boxes}: give both `masks` (a CSV) and `mask_images` (a folder), or neither")
    files = list_images(images)
    rows = _read_rows(boxes, ("XMin", "YMin", "XMax", "YMax"), files)
    if not rows:
        raise InputError(
            f"{boxes}: names none of the {len(files)} images in {images} (ImageID is the file name's stem)"
        )
    if masks is not None:
        mask_rows = _read_rows(masks, ("BoxXMin", "BoxYMin", "BoxXMax", "BoxYMax"), files)
        if not mask_rows:
            raise InputError(f"{masks}: names none of the {len(files)} images in {images}")
        _add_masks(rows, mask_rows)
    names_by_label = _read_descriptions(descriptions) if descriptions else {}
    nameless = next(
        (row.label for of_image in rows.values() for row in of_image if row.label not in names_by_label), None
    )
    if descriptions and nameless:
        raise InputError(f"{boxes}: class {nameless} is not in {descriptions}")
    found = {names_by_label.get(row.label, row.label) for of_image in rows.values() for row in of_image}
    unknown = sorted(set(classes or ()) - found - set(names_by_label.values()))
    if unknown:
        raise InputError(f"{descriptions or boxes}: no class {unknown[0]!r}")
    names = list(classes or sorted(found))

    def read(image_id: str) -> ImageRecord:
        record = ImageRecord(str(files[image_id]), image_id, *image_size(files[image_id], str(boxes)))
        for row in rows.get(image_id, []):
            name = names_by_label.get(row.label, row.label)
            if name in names:
                with collected(faults):
                    annotation = _annotation(row, names.index(name), record, boxes, mask_images, tally)
                    record.annotations.append(annotation)
        return record

    tally = Tally()
    records = in_threads(read, files, faults)
    tally.warn(boxes)
    return DataSet(names, records)


def _read_rows(file: Path, corners: Sequence[str], wanted: Container[str]) -> dict[str, list[_Row]]:
    """Returns the rows of the wanted images, by image. Files have millions of rows, so other rows are not parsed."""
    rows: dict[str, list[_Row]] = {}
    lines = _read_csv(file)
    header = next(lines, [])
    missing = [column for column in ("ImageID", "LabelName", *corners) if column not in header]
    if missing:
        raise InputError(f"{file}: no column {missing[0]}, found {', '.join(header) or 'nothing'}")
    column_of = {column: index for index, column in enumerate(header)}
    image_column = column_of["ImageID"]
    for number, fields in enumerate(lines, start=2):
        if len(fields) != len(header):
            raise InputError(f"{file}, line {number}: {len(fields)} fields, but {len(header)} columns")
        if fields[image_column] in wanted:
            box = finite((fields[column_of[corner]] for corner in corners), f"{file}, line {number}")
            group = "IsGroupOf" in column_of and fields[column_of["IsGroupOf"]] == "1"
            mask = fields[column_of["MaskPath"]] if "MaskPath" in column_of else None
            row = _Row(number, fields[column_of["LabelName"]], tuple(box), group, mask)
            rows.setdefault(fields[image_column], []).append(row)
    return rows


def _read_csv(file: Path) -> Iterator[list[str]]:
    try:
        with file.open("rb") as start:
            encoding = json.detect_encoding(start.read(4))
        with file.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as stream:
            yield from (fields for fields in csv.reader(stream) if fields)
    except UnicodeDecodeError as error:
        raise encoding_error(error.object, file) from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{file}: not a readable CSV ({error})") from error


def _read_descriptions(file: Path) -> dict[str, str]:
    names = {}
    for fields in _read_csv(file):
        if len(fields) != 2:
            raise InputError(f"{file}: expected rows `label,name`, found {','.join(fields)!r:.100}")
        names[fields[0]] = fields[1]
    return names


def _add_masks(rows: dict[str, list[_Row]], masks: dict[str, list[_Row]]) -> None:
    """Adds the masks to the rows of their boxes, in place; a mask without a box becomes a row of its image."""
    for image_id, of_image in masks.items():
        boxes = rows.setdefault(image_id, [])
        for mask in of_image:
            same = (k for k, row in enumerate(boxes) if row.mask is None and _object_key(row) == _object_key(mask))
            index = next(same, None)
            if index is None:
                boxes.append(mask)
            else:
                boxes[index] = boxes[index]._replace(mask=mask.mask)


def _object_key(row: _Row) -> tuple[str, tuple[float, ...]]:
    return row.label, tuple(round(value, 4) for value in row.box)


def _annotation(
    row: _Row, category: int, record: ImageRecord, file: Path, mask_images: Path | None, tally: Tally
) -> Annotation:
    height, width = record.height, record.width
    where = f"{file}, image {record.image_id}, line {row.line}"
    outside = [value for value in row.box if not -_TOLERANCE <= value <= 1 + _TOLERANCE]
    if outside:
        raise InputError(f"{where}: {outside[0]:g} is outside of the image; coordinates are fractions from 0 to 1")
    x0, y0, x1, y1 = row.box
    if x0 > x1 or y0 > y1:
        tally.swapped.append(where)
        x0, y0, x1, y1 = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    box = clip_box((x0 * width, y0 * height, x1 * width, y1 * height), height, width, where, tally.clipped)
    annotation = Annotation(category, box, crowd=row.group)
    if row.mask is not None and mask_images is not None:
        mask = read_pixels(path_below(mask_images, row.mask, where))
        if mask.ndim != 2:
            raise InputError(f"{mask_images / row.mask}: a mask has one channel, not {mask.shape[2]}")
        if abs(mask.shape[0] * width - mask.shape[1] * height) > 2 * max(height, width, *mask.shape):
            raise InputError(
                f"{mask_images / row.mask}: its shape is {mask.shape[1]} x {mask.shape[0]}, which differs from that of {record.file_name}"
            )
        scaled = Image.fromarray((mask > 0).astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        annotation.segmentation = encode_mask(np.array(scaled))
    return annotation


FORMAT = Format(
    name="openimages",
    description="Open Images: CSV files of boxes and masks",
    read=read_openimages,
    options=(
        Option("boxes", "the CSV of boxes", "file", required=True),
        Option("images", "the images, <ImageID>.jpg", "folder", required=True),
        Option("descriptions", "the CSV of class names", "file"),
        Option("masks", "the CSV of masks", "file"),
        Option("mask_images", "the mask PNGs", "folder"),
    ),
    shorthand=("boxes", "images"),
    lists_faults=True,
)
