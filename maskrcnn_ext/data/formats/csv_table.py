"""Reads CSV tables that have an object a row: their columns by the usual names, and their rows by images."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from maskrcnn_ext.data.formats.checked_values import finite
from maskrcnn_ext.data.formats.file_names import parse_name
from maskrcnn_ext.data.formats.image_files import image_size
from maskrcnn_ext.data.formats.image_folder import ImageFolder
from maskrcnn_ext.data.formats.reading_many import collected, in_threads
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.errors import InputError

IMAGE_COLUMNS = (
    "filename",
    "file_name",
    "file",
    "filepath",
    "image",
    "image_name",
    "image_path",
    "image_id",
    "img",
    "img_path",
    "path",
)
CLASS_COLUMNS = ("class", "class_name", "label", "label_name", "name", "category", "category_name")
IMAGE_SIZE = ("width", "height")

# The number of the line and the values of the columns of each row.
Rows = list[tuple[int, dict[str, str]]]


def column_names(row: Sequence[str]) -> list[str]:
    """Returns the names of the columns in lower case, with "_" for spaces."""
    return [name.strip().lower().replace(" ", "_") for name in row]


def first_of(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """Returns the first of the names that is a column; None without one."""
    return next((name for name in names if name in columns), None)


def read_first_row(file: Path) -> list[str]:
    """Returns the values of the first row of a CSV, which usually are the names of its columns; none of an empty file."""
    return next(_split(file, read_text(file).splitlines()[:1]), [])


def read_rows(file: Path, headers: Sequence[str] | None = None) -> tuple[list[str], Rows]:
    """Returns the names of the columns, and the rows.

    Args:
        file: the CSV; a comma, semicolon or tab separates its values.
        headers: the names of the columns of a file whose first row has none.

    Raises:
        InputError: a row has another number of values, or a value in quotes is too long.
    """
    table = enumerate(_split(file, read_text(file).splitlines()), start=1)
    lines = [(number, [value.strip() for value in row]) for number, row in table if any(row)]
    columns = list(headers) if headers else column_names(lines.pop(0)[1] if lines else [])
    for number, row in lines:
        if len(row) != len(columns):
            raise InputError(f"{file}, line {number}: has {len(row)} values, expected {len(columns)}")
    return columns, [(number, dict(zip(columns, row, strict=True))) for number, row in lines]


def read_images(
    table: Path,
    images: Path,
    rows: Rows,
    image: str,
    has_size: bool,
    add: Callable[[ImageRecord, dict[str, str], str], None],
    faults: list[str] | None,
) -> list[ImageRecord]:
    """Returns one record per image of a table, in its order.

    Args:
        table: the CSV, for messages.
        images: the folder of the images, which are found by the last parts of their paths, also without their suffix.
        rows: of the table.
        image: the column that names the image.
        has_size: whether the columns ``width`` and ``height`` are those of the image.
        add: adds a row, given its place for messages, to the record of its image.
        faults: gets the faults of images and rows, which are left out; None to raise the first.

    Raises:
        InputError: an image is missing or of another size than the table says, or a row is broken.
    """
    folder = ImageFolder(images)
    of_image: dict[str, Rows] = {}
    for number, row in rows:
        of_image.setdefault(row[image], []).append((number, row))

    def read(name: str) -> ImageRecord:
        number, first = of_image[name][0]
        path = parse_name(name, f"{table}, line {number}")
        file = folder.find(path) or images / path.name
        height, width = image_size(file, f"{table}, line {number}")
        stated = [first[key] for key in IMAGE_SIZE] if has_size else []
        if any(stated) and finite(stated, f"{table}, line {number}") != [width, height]:
            says = " x ".join(stated)
            raise InputError(f"{table}, line {number}: says {says} (width, height), but {file} is {width} x {height}")
        record = ImageRecord(str(file), name, height, width)
        for number, row in of_image[name]:
            with collected(faults):
                add(record, row, f"{table}, line {number}")
        return record

    return in_threads(read, of_image, faults)


def _split(file: Path, lines: Sequence[str]) -> Iterator[list[str]]:
    """Returns the values of each line."""
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    if not any('"' in line for line in lines):
        yield from (
            line.split(delimiter) for line in lines
        )  # csv limits the length of a value, which a mask may exceed
        return
    try:
        yield from csv.reader(lines, delimiter=delimiter)
    except csv.Error as error:
        raise InputError(f"{file}: not a CSV file ({error})") from error
