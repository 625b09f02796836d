"""Pastes predicted masks into their image and encodes them as RLEs, without an array of the image's size.

Masks in float32 are sampled by compiled code (``csrc/mask_paste.cpp``), on all threads; others, and all without a compiler, by PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.ops.native import function, loads
from maskrcnn_ext.ops.rle import RLE, encode_edges

# Pixels of a window that are sampled at a time: a few megabytes, and larger strips are not faster.
_STRIP_PIXELS = 2**17
# Edges of runs for which the compiled code has room, for each column of the image.
_EDGES_PER_COLUMN = 8
# Edges for which there is room at a time: 128 MB.
_MOST_EDGES = 2**24
# Smaller integers are exact in float32.
_EXACT_SIDE = 2**24
_FILE = Path(__file__).with_name("_mask_paste.so")


class _Paste(ctypes.Structure):
    """``Paste`` of the C++ source."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("masks", "side", "height", "width", "capacity", "threads"))


@functools.cache
def library() -> Callable[..., None]:
    """Returns the compiled function.

    Raises:
        OSError: see :func:`maskrcnn_ext.ops.native.function`.
    """
    compiled: Callable[..., None] = function(_FILE, "mask_paste_1")
    pointer = ctypes.c_void_p
    compiled.argtypes = [pointer, pointer, ctypes.c_float, pointer, pointer, ctypes.POINTER(_Paste)]  # type: ignore[attr-defined]
    compiled.restype = None  # type: ignore[attr-defined]
    return compiled


def paste_to_rle(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> list[RLE]:
    """Pastes masks into an image and encodes them. The result equals Detectron2's ``paste_masks_in_image`` on the CPU followed by
    pycocotools' ``encode``, bit for bit.

    Like Detectron2 on the CPU, it samples the box and one or two pixels around it, but column by column or strip by strip: memory does not
    depend on the box, and little on the image. It always computes on the CPU. Detectron2 on a GPU samples the whole image, so its masks
    can differ by rounding. They also differ below a threshold of 0.5, where a mask that touches the border of its box reaches beyond that
    window.

    Args:
        masks: (R, M, M) probabilities of R masks, sampled in their own dtype; integers are converted to float32.
        boxes: (R, 4) float32 x0, y0, x1, y1 in pixels of the image. Parts outside the image are cut off. A box that lies outside the
            image, is inverted by two pixels or more, or has NaN gets an empty mask.
        size: height and width of the image in pixels.
        threshold: least probability of a pixel of the mask, at least 0.

    Returns:
        R compressed RLEs, their counts as bytes.

    Raises:
        ValueError: masks or boxes have another shape, the threshold is negative, or the image has 2**32 pixels or more.

    Example:
        >>> paste_to_rle(torch.ones(1, 28, 28), torch.tensor([[1.0, 0, 2, 2]]), size=(2, 2))
        [{'size': [2, 2], 'counts': b'22'}]
    """
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or boxes.shape != (len(masks), 4):
        raise ValueError(f"masks must be (R, M, M) and boxes (R, 4): {tuple(masks.shape)}, {tuple(boxes.shape)}")
    if not threshold >= 0:
        raise ValueError(f"threshold must not be negative: {threshold}")
    if size[0] * size[1] >= 2**32:  # pycocotools stores runs in 32 bits and truncates longer ones silently
        raise ValueError(f"an RLE cannot hold an image of {size[0]} x {size[1]} pixels: paste into tiles of it")
    masks = masks.detach().to("cpu", masks.dtype if masks.is_floating_point() else torch.float32)
    boxes = boxes.detach().to("cpu", torch.float32)
    edges: list[Any] = [None] * len(masks)
    if masks.dtype == torch.float32 and masks.numel() and max(size) < _EXACT_SIDE and loads(library):
        step = max(1, _MOST_EDGES // (_EDGES_PER_COLUMN * size[1] + 1))
        parts = zip(masks.contiguous().split(step), boxes.contiguous().split(step), strict=True)
        edges = [found for part in parts for found in _compiled_edges(*part, size, threshold)]
    return [
        encode_edges(_run_edges(mask, box, size, threshold) if found is None else found, size)
        for mask, box, found in zip(masks, boxes, edges, strict=True)
    ]


def _compiled_edges(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> list[Any]:
    """Returns what :func:`_run_edges` does for each mask, with PyTorch's number of threads; None for masks of very many runs."""
    height, width = size
    capacity = _EDGES_PER_COLUMN * width
    edges, counts = np.empty((len(masks), capacity), np.int64), np.empty(len(masks), np.int64)
    sizes = _Paste(len(masks), masks.shape[1], height, width, capacity, torch.get_num_threads())
    pointers = edges.ctypes.data, counts.ctypes.data, ctypes.byref(sizes)
    library()(masks.data_ptr(), boxes.data_ptr(), threshold, *pointers)
    return [own[:count] if count <= capacity else None for own, count in zip(edges, counts.tolist(), strict=True)]


def _run_edges(mask: Tensor, box: Tensor, size: tuple[int, int], threshold: float) -> NDArray[np.int64]:
    """Returns where the runs of one pasted mask start and end, in turn, as column-major positions in the image.

    A run ends with its column, so the next one may start where it ended.
    """
    height, width = size
    left, top = (box[:2].floor() - 1).clamp(min=0).tolist()
    right, bottom = torch.minimum(box[2:].ceil() + 1, box.new_tensor([width, height])).tolist()
    if not (left < right and top < bottom):
        return np.empty(0, np.int64)
    x, y = _sample_positions(box[0], box[2], left, right), _sample_positions(box[1], box[3], top, bottom)

    rows, edges, start = len(y), [], int(left)
    for strip in x.split(max(1, _STRIP_PIXELS // rows)):
        # Columns first: the samples are in the order of an RLE.
        grid = torch.stack(torch.broadcast_tensors(strip[:, None], y), dim=2).to(mask.dtype)
        samples = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
        # A background pixel before the first column and after each column closes the runs.
        pixels = torch.zeros(1 + len(strip) * (rows + 1), dtype=torch.bool)
        torch.ge(samples, threshold, out=pixels[1:].view(len(strip), rows + 1)[:, :rows])
        changes = np.flatnonzero(np.diff(pixels.numpy()))
        columns, offsets = np.divmod(changes, rows + 1)
        edges.append((start + columns) * height + int(top) + offsets)
        start += len(strip)
    return np.concatenate(edges)


def _sample_positions(low: Tensor, high: Tensor, first: float, end: float) -> Tensor:
    """Returns where the pixels from `first` to `end` are in the mask of a box, from -1 to 1 between its edges; rounds as Detectron2."""
    centres = torch.arange(first, end, dtype=torch.float32) + 0.5
    return (centres - low) / (high - low) * 2 - 1
