"""Reads a CSV of masks as run lengths, one a row, as of Kaggle's competitions.

A mask is text such as ``1 3 10 5``: pixels 1 to 3 and 10 to 14, counted from 1 down the first column of the image, then down the next one,
or along its rows. The first row names the columns, such as ``ImageId``, ``EncodedPixels`` and ``ClassId``; an ``Image_Label`` is the name
of an image and a class, joined by "_".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PureWindowsPath

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import category_of
from maskrcnn_ext.data.formats.csv_table import (
    CLASS_COLUMNS,
    IMAGE_COLUMNS,
    IMAGE_SIZE,
    Rows,
    column_names,
    first_of,
    read_first_row,
    read_images,
    read_rows,
)
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.image_folder import ImageFolder
from maskrcnn_ext.data.formats.reading_many import collected
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, annotation_of_mask
from maskrcnn_ext.data.formats.volume import connected_parts
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_MASK = ("encodedpixels", "encoded_pixels", "rle", "rle_mask", "mask_rle", "annotation", "segmentation", "mask")
_IMAGE = (*IMAGE_COLUMNS, "imageid", "id")
_CLASS = (*CLASS_COLUMNS, "classid", "class_id", "cell_type")
_JOINED = ("image_label", "imageid_classid")
_NONE = ("", "-1", "nan", "NaN")  # masks of an image without objects
_RUNS = re.compile(r"[\d\s]+")
_ORDERS = ("columns", "rows")
_PIECES = ("row", "component")
_TRIED = 20  # masks from which the order of pixels is guessed


def read_csv_masks(
    table: Path,
    images: Path,
    *,
    order: str | None = None,
    instances: str = "row",
    classes: Sequence[str] | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads a CSV of masks.

    Args:
        table: the CSV.
        images: the folder of the images, which are found by the last parts of their paths, also without their suffix.
        order: ``columns`` or ``rows``, along which the pixels are counted. Default: columns, unless the first masks have at most half
            as many parts along rows, which a warning says.
        instances: ``row``: each row is an object; ``component``: each connected component of its mask is.
        classes: class names. Default: the classes of the table, sorted, or "object" if it has no such column.
        faults: gets the faults of images and rows, which are left out; None to raise the first.

    Returns:
        One record per image, in the order of the table. A row without a mask is an image without objects.

    Raises:
        InputError: an option or the columns are not known, an image is missing or of another size than the table says, or a mask is
            broken or extends beyond its image.
    """
    for name, value, known in (("order", order or "columns", _ORDERS), ("instances", instances, _PIECES)):
        if value not in known:
            raise InputError(f"{name} is {value!r}, expected {' or '.join(known)}")
    columns, rows, image, kind = _read_table(table)
    mask = first_of(_MASK, columns)
    if image is None or mask is None:
        raise InputError(f"{table}: expected columns such as ImageId and EncodedPixels, found {', '.join(columns)}")
    if not classes:
        classes = sorted({row[kind] for _, row in rows if row[mask] not in _NONE} if kind else {"object"})
    names = list(classes)
    order = order or _guess_order(table, images, [(row[image], row[mask]) for _, row in rows if row[mask] not in _NONE])

    def add(record: ImageRecord, row: dict[str, str], where: str) -> None:
        if row[mask] in _NONE:
            return
        category = category_of(row[kind], names, where) if kind else 0
        pixels = decode_runs(row[mask], record.height, record.width, order, where)
        if instances == "component":
            record.annotations += [Annotation(category, part.box, part.rle) for part in connected_parts(pixels, 1)]
        else:
            record.annotations.append(annotation_of_mask(pixels.astype(bool), category))

    records = read_images(table, images, rows, image, {*IMAGE_SIZE} <= {*columns}, add, faults)
    return DataSet(names, records)


def decode_runs(text: str, height: int, width: int, order: str, where: str) -> np.ndarray:
    """Returns the mask (H, W), uint8, of runs ``start length start length ...``, counted from 1 along columns or rows.

    Raises:
        InputError: the text is no list of pairs of whole numbers above 0, or a run ends beyond the image.

    Example:
        >>> decode_runs("1 2 4 1", 2, 3, "columns", "a.csv, line 2").tolist()
        [[1, 0, 0], [1, 1, 0]]
    """
    values = text.split()
    if not _RUNS.fullmatch(text) or len(values) % 2:
        raise InputError(f"{where}: expected a mask as pairs of a start and a length, found {text!r:.50}")
    starts, lengths = np.array(values, dtype=np.float64).reshape(-1, 2).T
    ends = starts + lengths - 1
    if min(starts.min(), lengths.min()) < 1 or ends.max() > height * width:
        raise InputError(
            f"{where}: the mask has pixels from {starts.min():.0f} to {ends.max():.0f} and a run of {lengths.min():.0f}, but the image has "
            f"pixels from 1 to {height * width} ({height} x {width})"
        )
    pixels = np.zeros(height * width, np.uint8)
    for start, end in zip(starts.astype(int).tolist(), ends.astype(int).tolist(), strict=True):
        pixels[start - 1 : end] = 1
    return pixels.reshape(width, height).T if order == "columns" else pixels.reshape(height, width)


def is_table_of_masks(file: Path) -> bool:
    """Returns whether a CSV has the columns of an image and of masks as run lengths."""
    columns = column_names(read_first_row(file))
    mask = first_of(_MASK, columns)
    if mask is None or first_of((*_IMAGE, *_JOINED), columns) is None:
        return False
    _, rows = read_rows(file)
    first = next((row[mask] for _, row in rows if row[mask] not in _NONE), "")
    return _RUNS.fullmatch(first) is not None


def describe_table(file: Path) -> tuple[list[str], bool]:
    """Returns the names of the images of a table of masks, and whether some image has several masks of a class, which are its objects."""
    _, rows, image, kind = _read_table(file)
    pairs = [(row[image], row[kind] if kind else "") for _, row in rows] if image else []
    return list(dict.fromkeys(name for name, _ in pairs)), len(set(pairs)) < len(pairs)


def _read_table(file: Path) -> tuple[list[str], Rows, str | None, str | None]:
    """Returns the names of the columns, the rows, and the columns of the image and of the class; None for one that is missing."""
    columns, rows = read_rows(file)
    joined = first_of(_JOINED, columns)
    if joined is None:
        return columns, rows, first_of(_IMAGE, columns), first_of(_CLASS, columns)
    for _, row in rows:
        row["image"], _, row["class"] = row[joined].rpartition("_")
    return columns, rows, "image", "class"


def _guess_order(table: Path, images: Path, masks: Sequence[tuple[str, str]]) -> str:
    """Returns rows if the first masks have at most half as many parts in that order, else columns, as for square images."""
    folder, parts = ImageFolder(images), dict.fromkeys(_ORDERS, 0)
    for name, text in islice(masks, _TRIED):
        file = folder.find(PureWindowsPath(name))
        if file is None:
            continue
        with collected([]):  # reading reports the faults
            for order in _ORDERS:
                parts[order] += len(connected_parts(decode_runs(text, *image_size(file, name), order, name), 1))
    if parts["columns"] < max(2 * parts["rows"], 1):
        return "columns"
    logger.warning(
        '%s: counts pixels along rows, as its masks have %s so, and %d along columns; add @order:columns (or order="columns") '
        "if this is wrong",
        table,
        plural(parts["rows"], "part"),
        parts["columns"],
    )
    return "rows"


FORMAT = Format(
    name="csv_masks",
    description="A CSV of masks as run lengths, as of Kaggle",
    read=read_csv_masks,
    options=(
        Option("table", "the CSV: an image, a class and the runs of a mask a row", "file", required=True),
        Option("images", "the images", "folder", required=True),
        Option("order", "columns or rows: along which pixels are counted", "text"),
        Option("instances", "row or component: what is one object", "text"),
    ),
    shorthand=("table", "images"),
    lists_faults=True,
)
