"""Reads the labels of a DICOM series, NRRD label maps and DICOM segmentations (SEG), as label values of its slices."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.dicom_series import Series, import_pydicom, plane_of, read_header
from maskrcnn_ext.data.formats.dicom_series import field as dicom_field
from maskrcnn_ext.data.formats.volume import pick_plane, whole_numbers
from maskrcnn_ext.errors import InputError

SUFFIXES = (".nrrd", ".dcm")
# The signs that convert NRRD's spaces to DICOM's (LPS): x to the left, y to the back, z to the head.
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "LPS": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "RAS": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "LAS": (1, -1, 1),
}


@dataclass(frozen=True, slots=True)
class Labels:
    """One file of labels.

    Attributes:
        file: the file.
        names: class name by label value; empty if the file has no names.
    """

    file: Path
    names: dict[int, str] = field(default_factory=dict)

    def planes(self, series: Series) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the index of a slice and its label values (H, W); more than once per slice if segments overlap.

        Raises:
            InputError: the file is truncated, or does not match the pixels of the series.
        """
        with _named_damage(self.file):
            yield from _of_seg(self.file, series) if self.file.suffix.lower() == ".dcm" else _of_nrrd(self.file, series)


@contextmanager
def _named_damage(file: Path) -> Iterator[None]:
    """Converts pydicom's errors to an InputError that names the file. Pydicom parses fields on access, so any access may raise."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, NotImplementedError, struct.error) as error:
        raise InputError(f"{file}: damaged ({' '.join(str(error).split())})") from error


def open_labels(file: Path) -> Labels:
    """Returns the labels of a file with the names of their values; reads no pixels.

    Raises:
        InputError: the file is neither NRRD nor a binary DICOM segmentation.
    """
    with _named_damage(file):
        return _open_labels(file)


def _open_labels(file: Path) -> Labels:
    if file.suffix.lower() == ".nrrd":
        header = _read_nrrd(file, with_data=False)[1]
        # 3D Slicer's fields: Segment0_Name, Segment0_LabelValue, ...
        segments = [key.removesuffix("_LabelValue") for key in header if key.endswith("_LabelValue")]
        return Labels(file, {int(header[f"{key}_LabelValue"]): str(header.get(f"{key}_Name", key)) for key in segments})
    header = read_header(file)
    kind = header.get("SegmentationType")
    if kind != "BINARY":
        what = f"a {kind} segmentation" if kind else "not a segmentation"
        raise InputError(f"{file}: {what}, expected a DICOM SEG of SegmentationType BINARY, or NRRD")
    segments = dicom_field(header, "SegmentSequence", file)
    return Labels(
        file,
        {int(dicom_field(one, "SegmentNumber", file)): str(dicom_field(one, "SegmentLabel", file)) for one in segments},
    )


def _of_nrrd(file: Path, series: Series) -> Iterator[tuple[int, np.ndarray]]:
    volume, header = _read_nrrd(file)
    shape = (series.width, series.height, len(series.slices))
    if volume.ndim != 3 or sorted(volume.shape) != sorted(shape):
        sizes = " x ".join(map(str, volume.shape))
        raise InputError(
            f"{file}: the label map is {sizes}, the series in {series.folder} {' x '.join(map(str, shape))}"
        )
    space = header.get("space")
    directions: Any = header.get("space directions")
    origin: Any = header.get("space origin")
    if (
        space not in _TO_LPS
        or np.shape(directions) != (3, 3)
        or np.shape(origin) != (3,)
        or not np.linalg.det(directions)
    ):
        raise InputError(
            f"{file}: has no position in space: `space` is {space!r} (expected one of {', '.join(_TO_LPS)}), "
            "`space directions` and `space origin` need three numbers per axis"
        )
    signs = np.array(_TO_LPS[space])
    volume = whole_numbers(volume, file)
    for index, one in enumerate(series.slices):
        plane = pick_plane(volume, (directions * signs).T, origin * signs, one.plane, series.height, series.width)
        if plane is None:
            raise InputError(
                f"{file}: its voxels are not the pixels of {one.file}: position or spacing differ; "
                "resample the label map to the series"
            )
        yield index, plane


def _read_nrrd(file: Path, *, with_data: bool = True) -> tuple[Any, dict[str, Any]]:
    nrrd = require("nrrd", extra="medical", purpose="reading NRRD")
    try:
        return nrrd.read(str(file)) if with_data else (None, nrrd.read_header(str(file)))
    except (nrrd.NRRDError, OSError, EOFError, ValueError, KeyError, StopIteration, zlib.error) as error:
        raise InputError(f"{file}: not a readable NRRD file, or truncated ({' '.join(str(error).split())})") from error


def _of_seg(file: Path, series: Series) -> Iterator[tuple[int, np.ndarray]]:
    pydicom = import_pydicom()
    header = pydicom.dcmread(file)
    by_uid = {one.uid: index for index, one in enumerate(series.slices)}
    groups = dicom_field(header, "PerFrameFunctionalGroupsSequence", file)
    count = int(dicom_field(header, "NumberOfFrames", file))
    if count != len(groups):
        raise InputError(f"{file}: has {count} frames, but positions for {len(groups)}")
    shared = header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    frames = _frames(header, count, file)
    for number, group in enumerate(groups, start=1):
        where = f"{file}: frame {number}"
        frame = next(frames)

        def find(sequence: str, name: str, group: Any = group) -> Any:
            for functional in (group, shared[0]):
                if functional.get(sequence):
                    return functional[sequence].value[0].get(name)
            return None

        value = find("SegmentIdentificationSequence", "ReferencedSegmentNumber")
        if value is None:
            raise InputError(f"{where}: has no segment number")
        index = _slice_of_frame(find, by_uid, series, where)
        mask = _on_slice(frame, find, series, index)
        if mask is None:
            raise InputError(
                f"{where}: its pixels do not match those of {series.slices[index].file}: position, spacing or size differ"
            )
        yield index, (mask > 0) * np.int32(value)


def _frames(header: Any, count: int, file: Path) -> Iterator[np.ndarray]:
    """Yields the frames (H, W) of 0 and 1, unpacked one at a time: all frames of a hundred organs would not fit into memory."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not syntax.is_deflated:
        raise InputError(
            f"{file}: its pixels are compressed ({syntax.name}); unpack them first: gdcmconv --raw <file> <new file>"
        )
    height, width = (int(dicom_field(header, name, file)) for name in ("Rows", "Columns"))
    packed = np.frombuffer(dicom_field(header, "PixelData", file), np.uint8)
    size = height * width
    if packed.size * 8 < size * count:
        raise InputError(
            f"{file}: truncated, it has {packed.size} bytes of pixels for {count} frames of {height} x {width}"
        )
    for start in range(0, size * count, size):
        # Frames are stored without gaps, so a frame may begin inside a byte; the first pixel is the lowest bit.
        first, skipped = divmod(start, 8)
        bits = np.unpackbits(packed[first : first + size // 8 + 2], bitorder="little")
        yield bits[skipped : skipped + size].reshape(height, width)


def _slice_of_frame(find: Any, by_uid: dict[str, int], series: Series, where: str) -> int:
    """Returns the index of the slice that a frame refers to, or of the nearest one if the frame only has a position."""
    sources = find("DerivationImageSequence", "SourceImageSequence")
    if sources:
        uid = str(sources[0].get("ReferencedSOPInstanceUID"))
        if uid not in by_uid:
            raise InputError(f"{where}: was drawn on image {uid}, which is not in {series.folder}")
        return by_uid[uid]
    position = find("PlanePositionSequence", "ImagePositionPatient")
    if position is None:
        raise InputError(f"{where}: has neither a source image nor a position")
    normal = np.cross(series.slices[0].plane[:, 0], series.slices[0].plane[:, 1])
    normal /= np.linalg.norm(normal)
    heights = [float(one.plane[:, 2] @ normal) for one in series.slices]
    return int(np.argmin(np.abs(np.array(heights) - np.array(position, dtype=float) @ normal)))


def _on_slice(frame: np.ndarray, find: Any, series: Series, index: int) -> np.ndarray | None:
    """Returns a frame's pixels in the order of the slice's; None if they do not match. A frame without a position has the slice's."""
    position = find("PlanePositionSequence", "ImagePositionPatient")
    orientation = find("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = find("PixelMeasuresSequence", "PixelSpacing")
    plane = series.slices[index].plane
    own = (
        plane
        if position is None or orientation is None or spacing is None
        else plane_of(position, orientation, spacing)
    )
    normal = np.cross(own[:, 0], own[:, 1])
    axes = np.stack([own[:, 0], own[:, 1], normal / np.linalg.norm(normal)], axis=1)
    if sorted(frame.shape) != sorted((series.height, series.width)):
        return None
    return pick_plane(frame.T[..., None], axes, own[:, 2], plane, series.height, series.width)
