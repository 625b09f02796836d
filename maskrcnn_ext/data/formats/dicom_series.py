"""Reads the headers of a DICOM series of single-frame images: its slices sorted by position, and the positions of their pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError

_SLIGHT = 1e-3  # tolerance of positions in mm and of direction cosines
# The errors that pydicom raises for damaged files, besides its own types.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError, struct.error, zlib.error)
_UNDEFINED_LENGTH = 0xFFFFFFFF  # of compressed pixels, whose end the parser must find


@dataclass(frozen=True, slots=True)
class Slice:
    """One image.

    Attributes:
        file: the file.
        uid: SOPInstanceUID.
        plane: (3, 3) in patient coordinates (LPS, mm); its columns are the steps to the next column and the next row of pixels, and the
            centre of pixel (0, 0).
        level: [center, width] of the grey values to show; None if the file has none.
    """

    file: Path
    uid: str
    plane: np.ndarray
    level: list[float] | None


@dataclass(frozen=True, slots=True)
class Series:
    """The slices of a series, all of the same size and orientation.

    Attributes:
        folder: the folder.
        slices: sorted by position along their normal.
        height: in pixels.
        width: in pixels.
    """

    folder: Path
    slices: list[Slice]
    height: int
    width: int


def read_series(folder: Path, series_uid: str | None = None) -> Series:
    """Reads the headers of the images in a folder, and sorts the slices by position.

    Files that are not DICOM, and DICOM files that are not images (reports, segmentations), are skipped.

    Raises:
        InputError: the folder has no images, or several series and none is chosen; slices differ in size or orientation or share a
            position; a file lacks a field, has several frames or is truncated.
    """
    import_pydicom()
    by_series: dict[str, list[Any]] = {}
    for file in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        header = read_header(file, strict=file.suffix.lower() == ".dcm")
        if header is None or not _is_image(header):
            continue
        by_series.setdefault(str(field(header, "SeriesInstanceUID", file)), []).append((file, header))
    if not by_series:
        raise InputError(f"{folder}: no DICOM images")
    if (series_uid is None and len(by_series) > 1) or (series_uid is not None and series_uid not in by_series):
        found_series = ", ".join(f"{uid} ({plural(len(images), 'image')})" for uid, images in by_series.items())
        which = "several series" if series_uid is None else f"no series {series_uid}"
        raise InputError(f"{folder}: {which}; choose one by `series_uid`: {found_series}")
    images = by_series[series_uid or next(iter(by_series))]
    first_file, first = images[0]
    for file, header in images:
        if _has_value(header, "NumberOfFrames") and numbers(header, "NumberOfFrames", file) > 1:
            raise InputError(
                f"{file}: has {header.NumberOfFrames} frames, expected one file a slice (split it with a converter)"
            )
    for name in ("Rows", "Columns", "ImageOrientationPatient", "PixelSpacing"):
        expected = numbers(first, name, first_file)
        for file, header in images:
            found = numbers(header, name, file)
            if found.shape != expected.shape or np.abs(found - expected).max() > _SLIGHT:
                raise InputError(
                    f"{file}: {name} is {found.tolist()}, but {expected.tolist()} in {first_file.name}: expected one series per volume"
                )
    slices = [_slice(file, header) for file, header in images]
    normal = np.cross(slices[0].plane[:, 0], slices[0].plane[:, 1])
    normal /= np.linalg.norm(normal)
    slices.sort(key=lambda one: float(one.plane[:, 2] @ normal))
    for before, after in pairwise(slices):
        if (after.plane[:, 2] - before.plane[:, 2]) @ normal < _SLIGHT:
            raise InputError(
                f"{after.file}: has the position of {before.file.name}; put copies, phases and time points into separate folders"
            )
    return Series(folder, slices, int(first.Rows), int(first.Columns))


def import_pydicom() -> Any:
    """Returns the module ``pydicom``.

    Raises:
        InputError: it is not installed.
    """
    return require("pydicom", extra="medical", purpose="reading DICOM")


def read_header(file: Path, *, strict: bool = True) -> Any:
    """Reads a DICOM file without its pixels.

    Returns:
        A ``pydicom.Dataset``; None for a file of another format, unless ``strict``.

    Raises:
        InputError: the file is not DICOM, or truncated.
    """
    pydicom = import_pydicom()
    try:
        # Deferred values are skipped, but their position in the file is kept.
        header = pydicom.dcmread(file, defer_size=4096)
        pixels = header.get_item("PixelData", keep_deferred=True) if "PixelData" in header else None
        deflated = field(header.file_meta, "TransferSyntaxUID", file).is_deflated
        is_image = _is_image(header)
    except pydicom.errors.InvalidDicomError as error:
        if not strict:
            return None
        raise InputError(f"{file}: not a DICOM file") from error
    except InputError:
        raise
    except (*_DAMAGE, pydicom.errors.BytesLengthException) as error:
        raise InputError(f"{file}: truncated or damaged ({error})") from error
    if pixels is None:
        if is_image:
            raise InputError(f"{file}: truncated, it has no pixels")
        return header
    # For compressed pixels and deflated files, the parser has already found the end.
    if pixels.length != _UNDEFINED_LENGTH and not deflated:
        size, end = file.stat().st_size, pixels.value_tell + pixels.length
        if end > size:
            raise InputError(f"{file}: truncated, it has {size} of {end} bytes")
    return header


def _is_image(header: Any) -> bool:
    """Returns whether a file is an image, not a segmentation or report, by its storage class, which survives a truncation."""
    uid = header.file_meta.get("MediaStorageSOPClassUID")
    return uid is None or "Image Storage" in uid.name


def field(header: Any, name: str, file: Path) -> Any:
    """Returns the value of a field.

    Raises:
        InputError: the field is missing, empty or damaged.
    """
    try:
        value = header.get(name)  # pydicom parses a field at its first access
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"{file}: {name} is damaged ({error})") from error
    if value is None or value == "" or (isinstance(value, Sequence) and len(value) == 0):
        raise InputError(f"{file}: has no {name}")
    return value


def numbers(header: Any, name: str, file: Path, size: int | None = None) -> np.ndarray:
    """Returns a field of numbers as floats.

    Raises:
        InputError: the field is missing, has other values than numbers, or another size than `size`.
    """
    value = field(header, name, file)
    expected = "numbers" if size is None else f"{size} numbers"
    try:
        found = np.array(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: {name} is damaged, expected {expected} ({error})") from error
    if not np.isfinite(found).all() or (size is not None and found.shape != (size,)):
        raise InputError(f"{file}: {name} is {found.tolist()}, expected {expected}")
    return found


def plane_of(
    position: Sequence[float] | np.ndarray,
    orientation: Sequence[float] | np.ndarray,
    spacing: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Returns ``Slice.plane`` (3, 3) from ImagePositionPatient, ImageOrientationPatient and PixelSpacing (rows first, in mm)."""
    right, down = np.array(orientation[:3], dtype=float), np.array(orientation[3:], dtype=float)
    return np.stack([right * float(spacing[1]), down * float(spacing[0]), np.array(position, dtype=float)], axis=1)


def _has_value(header: Any, name: str) -> bool:
    """Returns whether a field is present and not empty; its value may be damaged."""
    return name in header and bool(header.get_item(name).value)


def _slice(file: Path, header: Any) -> Slice:
    position, orientation, spacing = (
        numbers(header, name, file, size)
        for name, size in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    )
    plane = plane_of(position, orientation, spacing)
    level = None
    if _has_value(header, "WindowCenter") and _has_value(header, "WindowWidth"):
        # A file may have several levels; the first is its default.
        center, width = (float(numbers(header, name, file).flat[0]) for name in ("WindowCenter", "WindowWidth"))
        level = [center, width] if width > 0 else None
    return Slice(file, str(field(header, "SOPInstanceUID", file)), plane, level)
