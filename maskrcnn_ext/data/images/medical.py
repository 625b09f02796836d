"""Reads DICOM images in rescaled units, and slices of NIfTI volumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.images import check_size, slice_of
from maskrcnn_ext.errors import InputError


def is_dicom(path: str) -> bool:
    """Returns whether a file without a suffix, as scanners write it, is DICOM (PS3.10, section 7.1: "DICM" after 128 bytes)."""
    if PurePath(path).suffix:
        return False
    with Path(path).open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_dicom(path: str, record: dict[str, Any]) -> np.ndarray:
    """Reads a DICOM image as (H, W, C), a grey one in the units of its modality (PS3.3, C.11.1): Hounsfield units for CT.

    The transformation is that of the frame, else the shared one of all frames, else that of the file: a lookup table, or slope and
    intercept. Without any, values and type are as stored. The colours of a palette are resolved.
    """
    pydicom = require("pydicom", extra="medical", purpose=f"{record['file_name']}: reading it")
    pixels = require("pydicom.pixels", extra="medical", purpose=f"{record['file_name']}: reading it")
    data = pydicom.dcmread(path)
    if "Rows" not in data:
        raise InputError(f"{record['file_name']}: a DICOM file without an image")
    frames = int(data.get("NumberOfFrames") or 1)
    index = slice_of(record, frames) if frames > 1 or "slice" in record else 0
    check_size(record["file_name"], (data.Rows, data.Columns, data.SamplesPerPixel))
    image: np.ndarray = pixels.pixel_array(data, index=index)
    if data.get("PhotometricInterpretation") == "PALETTE COLOR":
        image = pixels.apply_color_lut(image, data)
    elif data.SamplesPerPixel == 1:
        image = _in_units(image, _pixel_transformation(data, index), pixels.apply_modality_lut)
    return image.reshape(*image.shape[:2], -1)


def _pixel_transformation(data: Any, index: int) -> Any:
    """Returns the dataset with the Modality LUT or rescale of a frame (PS3.3, C.7.6.16.2.9)."""
    per_frame = data.get("PerFrameFunctionalGroupsSequence") or []
    for groups in [*per_frame[index : index + 1], *(data.get("SharedFunctionalGroupsSequence") or [])]:
        if groups.get("PixelValueTransformationSequence"):
            return groups.PixelValueTransformationSequence[0]
    return data


def _in_units(image: np.ndarray, transformation: Any, apply_modality_lut: Callable[..., np.ndarray]) -> np.ndarray:
    if transformation.get("RescaleIntercept") is None and transformation.get("RescaleSlope") is not None:
        transformation.RescaleIntercept = 0
    if not transformation.get("ModalityLUTSequence") and transformation.get("RescaleSlope") is None:
        return image
    # Signed, as the first entry of a lookup table may be for a negative value.
    return apply_modality_lut(image.astype(np.int64), transformation)


def read_nifti(path: str, record: dict[str, Any]) -> np.ndarray:
    """Reads the record's ``slice`` along its ``axis`` of a volume as (H, W, C). The first of the other two axes is x, the second y.

    A fourth axis, such as the sequences of an examination, becomes the channels. Values are scaled by the file's slope and intercept.
    """
    nibabel = require("nibabel", extra="medical", purpose=f"{record['file_name']}: reading it")
    volume = nibabel.load(path)
    shape, axis = volume.shape, record.get("axis", 2)
    if len(shape) not in (3, 4) or axis not in (0, 1, 2):
        raise InputError(
            f"{record['file_name']}: a NIfTI volume of shape {shape}, `axis` {axis!r}; expected three or four axes and 0, 1 or 2"
        )
    index = slice_of(record, shape[axis])
    check_size(record["file_name"], [size for other, size in enumerate(shape) if other != axis])
    where: list[Any] = [slice(None)] * len(shape)
    where[axis] = index
    image = np.asarray(volume.dataobj[tuple(where)]).swapaxes(0, 1)
    return image.reshape(*image.shape[:2], -1)
