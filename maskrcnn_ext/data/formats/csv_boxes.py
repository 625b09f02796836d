"""Reads a CSV of boxes, one a row, as TensorFlow's tutorials, Roboflow and keras-retinanet have it.

The first row names the columns: the image, the class, and the corners or the upper left corner and the size of the box in pixels, under
any of the usual names; a column ``bbox`` holds x, y, width and height together, as in Kaggle's wheat heads. A file without such a row has
the columns ``image, x1, y1, x2, y2, class`` of keras-retinanet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.checked_values import category_of, clip_box, finite
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
from maskrcnn_ext.data.formats.image_files import is_image
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.formats.warnings import Tally
from maskrcnn_ext.errors import InputError

_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
)
_CORNER_AND_SIZE = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "w", "h"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("left", "top", "width", "height"),
)
_LIST, _LISTED = "bbox", ("bbox_x", "bbox_y", "bbox_width", "bbox_height")
_WITHOUT_HEADER = ("image", "x1", "y1", "x2", "y2", "class")


def read_csv_boxes(
    table: Path, images: Path, *, classes: Sequence[str] | None = None, faults: list[str] | None = None
) -> DataSet:
    """Reads a CSV of boxes.

    Args:
        table: the CSV.
        images: the folder of the images, which are found by the last parts of their paths, also without their suffix.
        classes: class names. Default: the classes of the table, sorted, or "object" if it has no such column.
        faults: gets the faults of images and rows, which are left out; None to raise the first.

    Returns:
        One record per image, in the order of the table. Objects are boxes without a mask; a row without coordinates is an image without
        objects. Warnings count boxes that extend beyond their image, which are clipped, and those whose corners are swapped.

    Raises:
        InputError: the columns are not known, an image is missing or of another size than the table says, or a row is broken.
    """
    columns, rows = _read_table(table)
    image = first_of(IMAGE_COLUMNS, columns)
    kind = first_of(CLASS_COLUMNS, columns)
    box = _box_columns(columns)
    if image is None or box is None:
        raise InputError(
            f"{table}: expected columns such as filename, class, xmin, ymin, xmax, ymax, found {', '.join(columns)}"
        )
    if not classes:
        named = {row[kind] for _, row in rows if row[box[0]]} if kind else {"object"}
        classes = sorted(named - {""})
    names, tally = list(classes), Tally()

    def add(record: ImageRecord, row: dict[str, str], where: str) -> None:
        if any(row[key] for key in box):
            _add(row, record, box, row[kind] if kind else names[0], names, where, tally)

    has_size = {*IMAGE_SIZE} <= {*columns} - {*box}
    records = read_images(table, images, rows, image, has_size, add, faults)
    tally.warn(table)
    return DataSet(names, records)


def is_table_of_boxes(file: Path) -> bool:
    """Returns whether a CSV has the columns of an image and a box."""
    first = read_first_row(file)
    columns = _headers(first) or column_names(first)
    return first_of(IMAGE_COLUMNS, columns) is not None and (_box_columns(columns) is not None or _LIST in columns)


def images_in(file: Path) -> list[str]:
    """Returns the names of the images in a table of boxes, in its order."""
    columns, rows = _read_table(file)
    image = first_of(IMAGE_COLUMNS, columns)
    return list(dict.fromkeys(row[image] for _, row in rows)) if image else []


def _read_table(file: Path) -> tuple[list[str], Rows]:
    """Returns the names of the columns and the rows; those of a column ``bbox`` have four more."""
    columns, rows = read_rows(file, _headers(read_first_row(file)))
    if _LIST in columns and _box_columns(columns) is None:
        columns = [*columns, *_LISTED]
        for number, values in rows:
            values |= zip(_LISTED, _listed(values[_LIST], f"{file}, line {number}"), strict=True)
    return columns, rows


def _listed(text: str, where: str) -> list[str]:
    """Returns the four values of a list such as ``[834.0, 222.0, 56.0, 36.0]``; four times "" for none."""
    values = re.split(r"[,;\s]+", text.strip("[]() ")) if text.strip("[]() ") else [""] * len(_LISTED)
    if len(values) != len(_LISTED):
        raise InputError(f"{where}: {_LIST} has {len(values)} values, expected x, y, width and height")
    return values


def _headers(first: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the columns of a file whose first row names none; None if it does."""
    has_none = len(first) == len(_WITHOUT_HEADER) and is_image(Path(first[0].strip()))
    return _WITHOUT_HEADER if has_none else None


def _box_columns(columns: Sequence[str]) -> tuple[str, ...] | None:
    return next((names for names in (*_CORNERS, *_CORNER_AND_SIZE) if set(names) <= set(columns)), None)


def _add(
    row: dict[str, str],
    record: ImageRecord,
    columns: tuple[str, ...],
    label: str,
    names: Sequence[str],
    where: str,
    tally: Tally,
) -> None:
    x0, y0, x1, y1 = finite((row[key] for key in columns), where)
    if columns in _CORNER_AND_SIZE:
        x1, y1 = x0 + x1, y0 + y1
    elif x0 > x1 or y0 > y1:
        tally.swapped.append(where)
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    box = clip_box((x0, y0, x1, y1), record.height, record.width, where, tally.clipped)
    record.annotations.append(Annotation(category_of(label, names, where), box))


FORMAT = Format(
    name="csv_boxes",
    description="A CSV of boxes, as of TensorFlow, Roboflow and keras-retinanet",
    read=read_csv_boxes,
    options=(
        Option("table", "the CSV: an image, a class and a box in pixels a row", "file", required=True),
        Option("images", "the images", "folder", required=True),
    ),
    shorthand=("table", "images"),
    lists_faults=True,
)
