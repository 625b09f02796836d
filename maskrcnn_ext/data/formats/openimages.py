"""Open Images V4 to V7 (storage.googleapis.com/openimages/web/download_v7.html): CSVs of boxes and of masks, coordinates as fractions.

The row of a mask repeats the box that it was drawn in, which connects the two. A mask PNG may have another resolution than its
image.
"""

from __future__ import annotations

import csv
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.reading import (
    clip_box,
    finite,
    image_size,
    in_threads,
    list_images,
    path_below,
    read_pixels,
)
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_mask


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
) -> DataSet:
    """Reads Open Images.

    Args:
        boxes: the CSV of boxes. Only the rows of images that are in ``images`` are read.
        images: the folder of the images, ``<ImageID>.jpg``.
        classes: which classes, in the order of the model; objects of others are left out. All that occur, sorted, when not given.
        descriptions: the CSV of class names, rows ``/m/0abc,Name``; without it the classes are called /m/0abc.
        masks: the CSV of masks.
        mask_images: the folder of the mask PNGs; needed with ``masks``.

    Returns:
        One record per image of the folder, sorted by id. Groups (``IsGroupOf``) are crowds. An object without a mask has no segmentation;
        a mask whose box is not among the boxes is a separate object.

    Raises:
        InputError: a broken CSV, no image that it names, an unreadable image or mask, an unknown class, or a box without area.
    """
    if (masks is None) != (mask_images is None):
        raise InputError(f"{boxes}: `masks` (a CSV) and `mask_images` (a folder) go together")
    files = list_images(images)
    rows = _rows(boxes, ("XMin", "YMin", "XMax", "YMax"), files)
    if not rows:
        raise InputError(
            f"{boxes}: names none of the {len(files)} images in {images} (ImageID is the file name's stem)"
        )
    if masks is not None:
        of_masks = _rows(masks, ("BoxXMin", "BoxYMin", "BoxXMax", "BoxYMax"), files)
        if not of_masks:
            raise InputError(f"{masks}: names none of the {len(files)} images in {images}")
        _join(rows, of_masks)
    called = _descriptions(descriptions) if descriptions else {}
    nameless = next((row.label for of_image in rows.values() for row in of_image if row.label not in called), None)
    if descriptions and nameless:
        raise InputError(f"{boxes}: class {nameless} is not in {descriptions}")
    found = {called.get(row.label, row.label) for of_image in rows.values() for row in of_image}
    unknown = sorted(set(classes or ()) - found - set(called.values()))
    if unknown:
        raise InputError(f"{descriptions or boxes}: no class {unknown[0]!r}")
    names = list(classes or sorted(found))

    def read(image_id: str) -> ImageRecord:
        record = ImageRecord(str(files[image_id]), image_id, *image_size(files[image_id], str(boxes)))
        for row in rows.get(image_id, []):
            name = called.get(row.label, row.label)
            if name in names:
                record.annotations.append(_annotation(row, names.index(name), record, boxes, mask_images))
        return record

    return DataSet(names, in_threads(read, files))


def _rows(file: Path, corners: Sequence[str], wanted: Container[str]) -> dict[str, list[_Row]]:
    """Returns the rows of wanted images by image. Files have millions of rows, so only wanted rows are parsed."""
    rows: dict[str, list[_Row]] = {}
    lines = _read_csv(file)
    header = next(lines, [])
    missing = [column for column in ("ImageID", "LabelName", *corners) if column not in header]
    if missing:
        raise InputError(f"{file}: no column {missing[0]}, found {', '.join(header) or 'nothing'}")
    at = {column: index for index, column in enumerate(header)}
    of_image = at["ImageID"]
    for number, fields in enumerate(lines, start=2):
        if len(fields) != len(header):
            raise InputError(f"{file}, line {number}: {len(fields)} fields, but {len(header)} columns")
        if fields[of_image] in wanted:
            box = finite((fields[at[corner]] for corner in corners), f"{file}, line {number}")
            group = "IsGroupOf" in at and fields[at["IsGroupOf"]] == "1"
            mask = fields[at["MaskPath"]] if "MaskPath" in at else None
            row = _Row(number, fields[at["LabelName"]], tuple(box), group, mask)
            rows.setdefault(fields[of_image], []).append(row)
    return rows


def _read_csv(file: Path) -> Iterator[list[str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield from (fields for fields in csv.reader(stream) if fields)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a readable CSV ({error})") from error


def _descriptions(file: Path) -> dict[str, str]:
    names = {}
    for fields in _read_csv(file):
        if len(fields) != 2:
            raise InputError(f"{file}: expected rows of a class and its name, found {','.join(fields)!r:.100}")
        names[fields[0]] = fields[1]
    return names


def _join(rows: dict[str, list[_Row]], masks: dict[str, list[_Row]]) -> None:
    """Adds the masks to the rows of their boxes, in place."""
    for image_id, of_image in masks.items():
        boxes = rows.setdefault(image_id, [])
        for mask in of_image:
            same = (k for k, row in enumerate(boxes) if row.mask is None and _key(row) == _key(mask))
            index = next(same, None)
            if index is None:
                boxes.append(mask)
            else:
                boxes[index] = boxes[index]._replace(mask=mask.mask)


def _key(row: _Row) -> tuple[str, tuple[float, ...]]:
    return row.label, tuple(round(value, 4) for value in row.box)


def _annotation(row: _Row, category: int, record: ImageRecord, file: Path, mask_images: Path | None) -> Annotation:
    height, width = record.height, record.width
    where = f"{file}, image {record.image_id}, line {row.line}"
    outside = [value for value in row.box if not -1e-3 <= value <= 1 + 1e-3]
    if outside:
        raise InputError(f"{where}: {outside[0]:g} lies outside of the image; coordinates are fractions from 0 to 1")
    x0, y0, x1, y1 = row.box
    box = clip_box((x0 * width, y0 * height, x1 * width, y1 * height), height, width, where)
    annotation = Annotation(category, box, crowd=row.group)
    if row.mask is not None and mask_images is not None:
        mask = read_pixels(path_below(mask_images, row.mask, where))
        if mask.ndim != 2:
            raise InputError(f"{mask_images / row.mask}: a mask has one channel, not {mask.shape[2]}")
        if abs(mask.shape[0] * width - mask.shape[1] * height) > 2 * max(height, width, *mask.shape):
            raise InputError(
                f"{mask_images / row.mask}: {mask.shape[1]} x {mask.shape[0]} is not the shape of {record.file_name}"
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
)
