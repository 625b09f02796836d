"""A part of an RLE's mask, without an array of the image's size: what drawing and cutting out objects of large images needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskrcnn_ext.ops.rle_segments import Segments

_COLUMN = 2**31  # of the places in Segments


def rle_window(rle: dict[str, Any], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Decodes a window of a mask in the time and memory that the window and the mask's outline take.

    Args:
        rle: of an image that the window lies in.
        x0: left edge of the window in pixels.
        y0: upper edge.
        x1: right edge, exclusive.
        y1: lower edge, exclusive.

    Returns:
        (y1 - y0, x1 - x0) uint8, 0 or 1.
    """
    part = Segments.from_rle(rle).crop((x0, y0, x1 - x0, y1 - y0))
    changes = np.zeros((x1 - x0, y1 - y0 + 1), np.int8)
    columns = part.starts // _COLUMN - x0
    np.add.at(changes, (columns, part.starts % _COLUMN - y0), 1)
    np.add.at(changes, (columns, part.ends % _COLUMN - y0), -1)
    mask = changes[:, :-1].cumsum(axis=1, dtype=np.int8).view(np.uint8)
    return np.ascontiguousarray(mask.T)
