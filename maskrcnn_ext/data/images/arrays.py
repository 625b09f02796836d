"""NumPy arrays: (H, W) or (H, W, C); with ``slice`` a stack of such, counted along the first axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskrcnn_ext.data.images import check_size, slice_of, window_of
from maskrcnn_ext.errors import InputError


def read_npy(path: str, record: dict[str, Any]) -> np.ndarray:
    """Reads what the record names of an array file (H, W, C); nothing else of it, and no pickled objects."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if "slice" in record:
        array = array[slice_of(record, len(array))]
    if array.ndim not in (2, 3):
        raise InputError(
            f"{record['file_name']}: an array of shape {array.shape}; expected (H, W) or (H, W, channels), or one axis more in "
            "front and a record with `slice`"
        )
    if "window" in record:
        x, y, width, height = window_of(record, array.shape[0], array.shape[1])
        array = array[y : y + height, x : x + width]
    check_size(record["file_name"], array.shape)
    return np.array(array).reshape(*array.shape[:2], -1)
