"""Reads the pixels of a record without losing values.

Detectron2's reader reads 8-bit photographs (JPEG, PNG, 8-bit TIFF, ...). 16-bit PNG, TIFF of any depth and number of channels, GeoTIFF
windows, NumPy arrays, DICOM and NIfTI slices keep their type and their channels.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np

from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.data.images import check_size, plain_type, slice_of, window_of
from maskrcnn_ext.data.images.large import is_large, read_large_window
from maskrcnn_ext.data.images.medical import is_dicom, read_dicom, read_nifti
from maskrcnn_ext.data.images.photos import convert_photo, is_photo, read_deep, read_photo
from maskrcnn_ext.data.images.tiff import read_tiff, read_window
from maskrcnn_ext.errors import InputError


def read_pixels(record: dict[str, Any], image_format: str) -> np.ndarray:
    """Reads the image of a record.

    Args:
        record: ``file_name``, and depending on the file

            * ``window``: [x, y, width, height] in pixels of the file, the part that is the image; only this part of a
              GeoTIFF, an array or a photograph of more than 67 million pixels is read;
            * ``slice``: index in a TIFF stack, a volume or a DICOM file of several frames;
            * ``axis``: the axis of a NIfTI volume that ``slice`` counts along (default 2); the other two are rows and columns, in the
              order of the file;
            * ``level``: [center, width] of the values that are spread over 0 to 255, as on a radiologist's screen.
        image_format: "BGR", "RGB" or "L" (any other format of Detectron2 for 8-bit photographs), or "raw" for the channels as stored,
            colours in the order R, G, B. A grey image of any depth becomes three equal channels for "BGR" and "RGB". The
            transparency of an 8-bit photograph is dropped except for "raw".

    Returns:
        (H, W, C) as uint8, uint16, int16 or float32: the stored type if it is one of these, else float32 with the same values. DICOM is
        in rescaled units (Hounsfield units for CT). EXIF rotation is applied.

    Raises:
        InputError: the file is missing, broken or too large, or its number of channels does not fit ``image_format``.

    Example:
        >>> np.save(tmp_path / "a.npy", np.zeros((4, 6), np.uint16))
        >>> read_pixels({"file_name": tmp_path / "a.npy"}, "raw").shape
        (4, 6, 1)
    """
    from detectron2.utils.file_io import PathManager

    name = str(record["file_name"])
    try:
        path = PathManager.get_local_path(name)
        image, is_final = _read(path, record, image_format)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except Exception as error:  # decoders raise errors of many types for broken files
        raise InputError(f"{name}: cannot be read as an image ({one_line(error):.200})") from error
    if is_final:
        return image
    image = plain_type(image, name)
    if "level" in record:
        image = _spread(image, record["level"], name)
    return _arrange(image, image_format, name)


def _read(path: str, record: dict[str, Any], image_format: str) -> tuple[np.ndarray, bool]:
    """Returns (H, W, C), and whether it is in ``image_format`` already."""
    suffix = PurePath(path).suffix.lower()
    is_tiff = suffix in (".tif", ".tiff")
    windowed = "window" in record
    if suffix == ".npy":
        return _read_npy(path, record), False
    if suffix in (".nii", ".gz"):
        image = read_nifti(path, record)
    elif suffix in (".dcm", ".dicom") or is_dicom(path):
        image = read_dicom(path, record)
    elif is_tiff and windowed:
        return read_window(path, record, alpha=image_format == "raw"), False
    elif is_tiff and ("slice" in record or not is_photo(path)):
        image = read_tiff(path, record)
    elif windowed and is_large(path):
        part = read_large_window(path, record)
        if part.dtype == np.uint8 and image_format != "raw" and "level" not in record:
            return convert_photo(part, image_format), True
        return part, False
    else:
        deep = read_deep(path)
        if deep is None:
            image = read_photo(path, "raw" if "level" in record else image_format)
            return (_crop(image, record) if windowed else image), "level" not in record
        image = deep
    return (_crop(image, record) if windowed else image), False


def _read_npy(path: str, record: dict[str, Any]) -> np.ndarray:
    """Reads a NumPy file (H, W) or (H, W, C), or the record's ``slice`` along the first axis of a stack of such. Returns (H, W, C).

    Only the record's ``slice`` and ``window`` are read; files with pickled objects are refused.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if "slice" in record:
        array = array[slice_of(record, len(array))]
    if array.ndim not in (2, 3):
        raise InputError(
            f"{record['file_name']}: an array of shape {array.shape}; expected (H, W) or (H, W, channels), or one more axis in "
            "front and a record with `slice`"
        )
    if "window" in record:
        x, y, width, height = window_of(record, array.shape[0], array.shape[1])
        array = array[y : y + height, x : x + width]
    check_size(record["file_name"], array.shape)
    return np.array(array).reshape(*array.shape[:2], -1)


def _crop(image: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """Returns the record's ``window`` of an image (H, W, C)."""
    x, y, width, height = window_of(record, image.shape[0], image.shape[1])
    return image[y : y + height, x : x + width]


def _spread(image: np.ndarray, level: Any, name: str) -> np.ndarray:
    """Returns the values of a window of levels (DICOM PS3.3, C.11.2.1.2) as uint8."""
    try:
        center, width = (float(value) for value in level)
    except (TypeError, ValueError):
        raise InputError(f"{name}: `level` is {level!r}, expected [center, width]") from None
    if not width > 0:
        raise InputError(f"{name}: the width of `level` is {width}, expected more than 0")
    scaled = (image.astype(np.float32) - (center - width / 2)) * (255 / width)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _arrange(image: np.ndarray, image_format: str, name: str) -> np.ndarray:
    """Returns stored channels as the channels of an image format."""
    channels = image.shape[2]
    if image_format == "raw" or (image_format == "L" and channels == 1):
        return image
    if image_format in ("BGR", "RGB"):
        if channels == 1:
            return image.repeat(3, axis=2)
        if channels == 3:
            return image[:, :, ::-1] if image_format == "BGR" else image
    raise InputError(
        f"{name}: has {channels} channels of {image.dtype}, which do not fit image_format={image_format}: set "
        "dataloader.train.mapper.image_format=raw; `maskrcnn-ext data-stats` prints the model's overrides"
    )
