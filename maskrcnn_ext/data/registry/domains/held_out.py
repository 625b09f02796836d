"""A split for data that comes without one: a fifth is held out, so that nothing of it is in the images to train on.

What is cut into several images stays together: the slices of a volume belong to one patient, and neighbouring windows of a map show
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
    """Returns the images of the last fifth of the files; of a single file none."""
    held_out = _last_files(records)
    return [record for record in records if record.file_name in held_out]


def train_by_place(records: list[ImageRecord]) -> list[ImageRecord]:
    """Returns the windows of the upper four fifths of every raster, without those that reach into the rest."""
    starts = _lower_parts(records)
    return [record for record in records if _top(record) + record.height <= starts[record.file_name]]


def val_by_place(records: list[ImageRecord]) -> list[ImageRecord]:
    """Returns the windows of the lower fifth of every raster; of a single row of windows none."""
    starts = _lower_parts(records)
    return [record for record in records if _top(record) >= starts[record.file_name]]


def _last_files(records: list[ImageRecord]) -> set[str]:
    files = list(dict.fromkeys(record.file_name for record in records))
    return set(files[_boundary(len(files)) :])


def _lower_parts(records: list[ImageRecord]) -> dict[str, float]:
    """Returns where, in pixels from above, the held-out part of every raster begins."""
    rows: dict[str, set[float]] = {}
    for record in records:
        rows.setdefault(record.file_name, {math.inf}).add(_top(record))
    return {file: sorted(tops)[_boundary(len(tops) - 1)] for file, tops in rows.items()}


def _top(record: ImageRecord) -> float:
    return float(record.extra["window"][1])


def _boundary(count: int) -> int:
    """How many of a count come before the last fifth: of two or more, not all."""
    return max(1, min(round(0.8 * count), count - 1))


BY_FILE = {"train": train_by_file, "val": val_by_file}
BY_PLACE = {"train": train_by_place, "val": val_by_place}
