"""Reads NIfTI volumes with label maps on the same grid: two ``.nii`` or ``.nii.gz`` files, or two folders with equal file names.

Every slice along one axis is an image. The first of the two other axes of the file's array is x and the second is y, as in the format
(i, j, k are x, y, z). Slices are not flipped or rotated to a standard orientation.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.data.formats import Format, Option
from maskrcnn_ext.data.formats.file_names import pair_files, stem_of
from maskrcnn_ext.data.formats.reading_many import collected
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.formats.volume import (
    LabelTable,
    label_table,
    level_extra,
    same_grid,
    warn_of_parts,
    whole_numbers,
)
from maskrcnn_ext.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
# Voxels of a label map, which is read whole. A file of a few MB can unpack to any number.
_MOST_VOXELS = 2**30


def read_nifti(
    images: Path,
    labels: Path,
    *,
    classes: Sequence[str] | None = None,
    values: Mapping[int, str | None] | None = None,
    instances: str = "value",
    axis: int = 2,
    level: tuple[float, float] | None = None,
    faults: list[str] | None = None,
) -> DataSet:
    """Reads volumes and their label maps; 0 is the background.

    Args:
        images: a volume, or a folder of them.
        labels: its label map, or the folder of the label maps with the volumes' names.
        classes: class names; "object" if neither this nor ``values`` is set.
        values: the class name of every label value, None to ignore a value. By default, value 1 is the first class, 2 the second, and so
            on; but with a single class and ``instances="value"``, every value is an object of that class.
        instances: "value" if all pixels of a value in a slice are one object (instance maps, organs); "component" if each connected
            component is one (semantic maps).
        axis: the axis along which slices are taken (0, 1 or 2).
        level: (center, width) of the grey values to show, such as (50, 400) for soft tissue in CT; None leaves this to the mapper.
        faults: gets the faults of volumes, which are left out; None to raise the first.

    Returns:
        One record per slice, including slices without objects. Its ``extra`` has ``slice``, ``axis`` and, if set, ``level``. Its id is
        ``<name>_<slice>``.

    Raises:
        InputError: a file is unreadable or truncated, a label map and its volume have different grids, or a value has no class.
    """
    if axis not in (0, 1, 2):
        raise InputError(f"{images}: `axis` is {axis!r}, expected 0, 1 or 2")
    table = label_table(classes, values, instances)
    extra = {"axis": axis, **level_extra(level)}
    records = []
    for image, label_map in pair_files(images, labels, SUFFIXES, SUFFIXES):
        with collected(faults):
            records += _read_pair(image, label_map, table, extra)
    warn_of_parts(table.in_parts, sum(len(record.annotations) for record in records), labels, "values")
    return DataSet(table.names, records)


def _read_pair(image: Path, label_map: Path, table: LabelTable, extra: dict[str, Any]) -> list[ImageRecord]:
    header, theirs = _open(image), _open(label_map)
    _check_length(image, header)
    _check_length(label_map, theirs)
    if header.ndim not in (3, 4):
        raise InputError(f"{image}: has {header.ndim} dimensions, expected a volume (3), or one with channels (4)")
    shape = header.shape[:3]
    if math.prod(theirs.shape) > _MOST_VOXELS:
        raise InputError(
            f"{label_map}: a label map of {_size(theirs.shape)} has more than {_MOST_VOXELS:,} voxels: cut the volume into parts"
        )
    labels = _read_labels(label_map, theirs)
    if labels.shape != shape:
        raise InputError(
            f"{label_map}: the label map is {_size(labels.shape)}, its volume {image.name} is {_size(shape)}"
        )
    if not same_grid(shape, header.affine, theirs.affine):
        raise InputError(
            f"{label_map}: the affine of the label map differs from that of its volume {image.name}: resample it to the volume, "
            "such as with nibabel.processing.resample_from_to(labels, volume, order=0)"
        )
    axis = extra["axis"]
    records = []
    for index in range(shape[axis]):
        plane = np.take(labels, index, axis).T  # rows are y
        record = ImageRecord(str(image), f"{stem_of(image, SUFFIXES) or image.name}_{index}", *plane.shape)
        record.extra.update(slice=index, **extra)
        record.annotations = table.annotations(plane, f"{label_map}: slice {index}")
        records.append(record)
    return records


def _open(file: Path) -> Any:
    nibabel = require("nibabel", extra="medical", purpose="reading NIfTI")
    try:
        image = nibabel.load(file)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, OSError, EOFError) as error:
        raise InputError(f"{file}: not a readable NIfTI file ({one_line(error)})") from error
    except (zlib.error, ValueError) as error:
        raise InputError(f"{file}: damaged ({one_line(error)})") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise InputError(f"{file}: a {type(image).__name__}, expected one NIfTI file (.nii, .nii.gz)")
    return image


def _check_length(file: Path, image: Any) -> None:
    """Raises if a volume is truncated. Its voxels are not read: the mapper reads them slice by slice."""
    expected = int(image.dataobj.offset) + math.prod(image.shape) * image.get_data_dtype().itemsize
    found = _length_of_gzip(file, expected) if file.name.lower().endswith(".gz") else file.stat().st_size
    if found < expected:
        raise InputError(f"{file}: truncated, it has {found} of {expected} bytes")


def _length_of_gzip(file: Path, expected: int) -> int:
    """Returns the unpacked size of a gzip file in bytes. Unpacks it only if the size in its last four bytes is not the expected one."""
    try:
        with file.open("rb") as stream:
            stream.seek(-4, 2)
            if int.from_bytes(stream.read(4), "little") == expected % 2**32:
                return expected
        length = 0
        with gzip.open(file) as stream:
            while length < expected and (block := stream.read(1 << 20)):
                length += len(block)
        return length
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: truncated or damaged ({error})") from error


def _read_labels(file: Path, image: Any) -> np.ndarray:
    try:
        labels = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{file}: truncated or damaged ({one_line(error)})") from error
    if labels.ndim == 4 and labels.shape[3] == 1:
        labels = labels[..., 0]
    return whole_numbers(labels, file)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


FORMAT = Format(
    name="nifti",
    description="NIfTI volumes with label maps",
    read=read_nifti,
    options=(
        Option("images", "a volume, or a folder of them", "path", required=True),
        Option("labels", "its label map, or the folder of the label maps", "path", required=True),
        Option("values", "the class name of every label value", "names"),
        Option("instances", '"value" or "component": what counts as one object', "text"),
        Option("axis", "the axis along which slices are taken (0, 1 or 2)", "whole number"),
        Option("level", "(center, width) of the grey values to show", "numbers"),
    ),
    shorthand=("images", "labels"),
    extra="medical",
    lists_faults=True,
)
