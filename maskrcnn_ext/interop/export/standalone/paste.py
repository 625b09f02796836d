"""Converts masks and keypoints of an exported model to the image. Copy this file beside your program; it needs NumPy and OpenCV only."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# A window's origin (x, y) in the image, and its pixels (h, w).
Window = tuple[tuple[int, int], NDArray[np.bool_]]


def paste(mask: Array, box: Array, size: tuple[int, int], threshold: float = 0.5) -> Window:
    """Pastes one mask into the part of the image that it covers, as Detectron2 does.

    Args:
        mask: (S, S) probabilities on a grid over the box.
        box: (4,), x0, y0, x1, y1 in pixels of the image.
        size: height and width of the image in pixels.
        threshold: least probability of the object's pixels.

    Returns:
        The window's origin, and its pixels; the window of a box outside the image is empty.

    Example:
        >>> (x, y), window = paste(np.ones((28, 28)), np.array([10, 20, 14, 23]), (480, 640))
        >>> x, y, int(window.sum())
        (9, 19, 12)
    """
    height, width = size
    x0, y0, x1, y1 = (np.float32(value) for value in box)
    left, top = max(int(np.floor(x0)) - 1, 0), max(int(np.floor(y0)) - 1, 0)
    right, bottom = min(int(np.ceil(x1)) + 1, width), min(int(np.ceil(y1)) + 1, height)
    if left >= right or top >= bottom:
        return (0, 0), np.zeros((0, 0), bool)
    rows = _weights(y0, y1, top, bottom, mask.shape[0])
    columns = _weights(x0, x1, left, right, mask.shape[1])
    # Bilinear interpolation is one product of matrices for each axis.
    return (left, top), (rows @ mask @ columns.T) >= np.float32(threshold)


def paste_whole_pixels(mask: Array, box: Array, size: tuple[int, int], threshold: float = 0.5) -> Window:
    """Pastes one mask as torchvision does: into a box of whole pixels, with a margin of one sample of zeros.

    Arguments and result are those of :func:`paste`.
    """
    height, width = size
    x0, y0, x1, y1 = (np.float32(value) for value in box)
    margin = np.float32((mask.shape[0] + 2) / mask.shape[0])
    half = (x1 - x0) * np.float32(0.5) * margin, (y1 - y0) * np.float32(0.5) * margin
    centre = (x1 + x0) * np.float32(0.5), (y1 + y0) * np.float32(0.5)
    left, top, right, bottom = (int(c + sign * h) for sign in (-1, 1) for c, h in zip(centre, half, strict=True))
    drawn = cv2.resize(
        np.pad(mask, 1), (max(right - left + 1, 1), max(bottom - top + 1, 1)), interpolation=cv2.INTER_LINEAR
    )
    first_x, first_y = max(left, 0), max(top, 0)
    window = drawn[first_y - top : max(height - top, 0), first_x - left : max(width - left, 0)]
    return (first_x, first_y), window >= np.float32(threshold)


def full_masks(windows: Sequence[Window], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns masks (R, height, width) of the whole image for R windows. This takes R bytes for each pixel of the image.

    Example:
        >>> full_masks([((1, 0), np.ones((1, 2), bool))], (2, 4)).astype(int).tolist()
        [[[0, 1, 1, 0], [0, 0, 0, 0]]]
    """
    images = np.zeros((len(windows), *size), bool)
    for image, ((left, top), window) in zip(images, windows, strict=True):
        image[top : top + window.shape[0], left : left + window.shape[1]] = window
    return images


def keypoints(heatmaps: Array, boxes: Array) -> Array:
    """Returns the keypoints of R boxes, as Detectron2 does: the maximum of each heatmap, enlarged to the box's size.

    Args:
        heatmaps: (R, K, S, S) logits on a grid over the box.
        boxes: (R, 4), x0, y0, x1, y1 in pixels of the model's input.

    Returns:
        (R, K, 3), x, y in pixels of the model's input, and score.
    """
    found = np.zeros((*heatmaps.shape[:2], 3), np.float32)
    for index, (maps, box) in enumerate(zip(heatmaps, boxes, strict=True)):
        width, height = np.maximum(box[2:] - box[:2], 1)
        columns, rows = int(np.ceil(width)), int(np.ceil(height))
        for number, grid in enumerate(maps):
            large = cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC)
            row, column = divmod(int(large.argmax()), columns)
            score = 1 / np.exp(grid - large[row, column]).sum()
            x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
            found[index, number] = box[0] + x, box[1] + y, score
    return found


def _weights(low: np.float32, high: np.float32, first: int, end: int, samples: int) -> Array:
    """Returns the bilinear weights (end - first, samples) of a mask's samples for the pixels of one axis from `first` to `end`."""
    centres = np.arange(first, end, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        position = (centres - low) / (high - low) * np.float32(samples) - np.float32(0.5)
        weights = 1 - np.abs(position[:, None] - np.arange(samples, dtype=np.float32))
    # A box without extent has no pixels.
    return np.nan_to_num(np.maximum(weights, 0), nan=0.0)
