"""Reads TIFF of any depth and number of channels: a whole image or one of a stack by tifffile, a window by rasterio."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.images import check_size, slice_of, window_of
from maskrcnn_ext.errors import InputError


def read_tiff(path: str, record: dict[str, Any]) -> np.ndarray:
    """Reads the first image series of a TIFF as (H, W, C); channels may be stored first or last, interleaved or planar.

    A third axis without a meaning in the file is the channel axis, unless the record has ``slice``. Whether it is first or last follows
    from the record's ``height`` and ``width``; without these, the shorter of the two is the channel axis.
    """
    tifffile = require("tifffile", extra="tiff", purpose=f"{record['file_name']}: reading it")
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        shape, axes = list(series.shape), str(series.axes)
        key = index = None
        if "slice" in record or axes[0] in "ZT":  # depth, time
            if len(shape) < 3:
                raise InputError(f"{record['file_name']}: `slice` is given, but the file is one image")
            index = slice_of(record, shape[0])
            # With one page per image, the other pages need not be decoded.
            key = index if len(series.pages) == shape[0] else None
            del shape[0]
            axes = axes[1:]
        check_size(record["file_name"], shape)
        for page in series.pages if key is None else [series.pages[key]]:
            end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
            if end > file.filehandle.size:
                raise InputError(
                    f"{record['file_name']}: truncated: {file.filehandle.size} bytes, and pixels up to {end}"
                )
        array = series.asarray() if key is None else file.asarray(key=key, series=0)
    if index is not None and key is None:
        array = array[index]
    return _channels_last(np.asarray(array), axes, record)


def _channels_last(array: np.ndarray, axes: str, record: dict[str, Any]) -> np.ndarray:
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3:
        raise InputError(
            f"{record['file_name']}: a TIFF of shape {array.shape} ({axes}); expected an image of one or more channels, or a stack of "
            "images and a record with `slice`"
        )
    size = (record.get("height"), record.get("width"))
    if axes[0] in "SC":
        first = True
    elif axes[2] in "SC":
        first = False
    elif size in (array.shape[1:], array.shape[:2]):
        first = size == array.shape[1:]
    else:
        first = array.shape[0] < array.shape[2]
    return np.moveaxis(array, 0, 2) if first else array


def read_window(path: str, record: dict[str, Any], *, alpha: bool) -> np.ndarray:
    """Reads the record's ``window`` of a TIFF as (h, w, C). Blocks outside of the window are not decoded.

    Args:
        path: the file.
        record: with ``window``.
        alpha: whether to keep the transparency channel.
    """
    rasterio = require("rasterio", extra="geo", purpose=f"{record['file_name']}: reading it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            x, y, width, height = window_of(record, file.height, file.width)
            transparency = rasterio.enums.ColorInterp.alpha
            kept = [
                band for band, kind in zip(file.indexes, file.colorinterp, strict=True) if alpha or kind != transparency
            ]
            check_size(record["file_name"], (height, width, len(kept)))
            bands = file.read(kept, window=rasterio.windows.Window(x, y, width, height))
    return np.moveaxis(bands, 0, 2)
