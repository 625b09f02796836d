"""Splits data without an official split: holds out a fifth for validation, without overlap with the images to train on.

Images cut from one file are not spread over both parts: the slices of a volume show one patient, and neighbouring windows of a map show
the same trees.
"""

from __future__ import annotations

import math

from maskrcnn_ext.data.formats.records import ImageRecord


def train_by_file(records: list[ImageRecord]) -> list[ImageRecord]:
    """Returns the images of the first four fifths of the files, in the order of the records."""
    held_out = _last_files(records)
    return [record for record in records if record.file_name not in held_out]


def val_by_file(records: list[ImageRecord]) -> list[ImageRecord]:
    """Returns the images of the last fifth of the files; an empty list for a single file."""
    held_out = _last_files(records)
    return [record for record in records if record.file_name in held_out]


def train_by_place(records: list[ImageRecord]) -> list[ImageRecord]:
    """Returns the windows of the upper four fifths of every raster, without those that overlap the rest."""
    starts = _lower_parts(records)
    return [record for record in records if _top(record) + record.height <= starts[record.file_name]]


def val_by_place(records: list[ImageRecord]) -> list[ImageRecord]:
    """Returns the windows of the lower fifth of every raster; an empty list for a single row of windows."""
    starts = _lower_parts(records)
    return [record for record in records if _top(record) >= starts[record.file_name]]


def _last_files(records: list[ImageRecord]) -> set[str]:
    files = list(dict.fromkeys(record.file_name for record in records))
    return set(files[_boundary(len(files)) :])


def _lower_parts(records: list[ImageRecord]) -> dict[str, float]:
    """Returns the first row of the held-out part of every raster, in pixels; infinity if it has a single row of windows."""
    rows: dict[str, set[float]] = {}
    for record in records:
        rows.setdefault(record.file_name, {math.inf}).add(_top(record))
    return {file: sorted(tops)[_boundary(len(tops) - 1)] for file, tops in rows.items()}


def _top(record: ImageRecord) -> float:
    return float(record.extra["window"][1])


def _boundary(count: int) -> int:
    """Returns how many of `count` items are before the last fifth: at least one, and not all of two or more."""
    return max(1, min(round(0.8 * count), count - 1))


BY_FILE = {"train": train_by_file, "val": val_by_file}
BY_PLACE = {"train": train_by_place, "val": val_by_place}
