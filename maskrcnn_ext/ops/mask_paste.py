"""Mask probabilities in their boxes to COCO RLEs of the image, without an array of the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_util
from torch import Tensor
from torch.nn import functional as F

# How much of a window is sampled at a time: a few megabytes of memory, and more are not faster.
_STRIP_PIXELS = 2**17


def paste_to_rle(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> list[dict[str, Any]]:
    """Pastes masks into an image and encodes them: Detectron2's ``paste_masks_in_image`` and pycocotools' ``encode`` in one, bit for bit.

    It samples Detectron2's window for the CPU, the box and one or two pixels around it, strip by strip: the memory needed depends
    neither on the image nor on the box. It computes on the CPU, wherever the masks are. Detectron2 on a GPU samples all of the
    image: that differs where its arithmetic rounds differently, and below a threshold of 0.5, which a mask that touches its box's
    border exceeds beyond the window.

    Args:
        masks: (R, M, M) probabilities of R masks, sampled in their own dtype; float32 if they are whole numbers.
        boxes: (R, 4), x0, y0, x1, y1 in pixels of the image, float32. Whatever lies outside of the image is cut off; a box that
            lies there altogether, is upside down by two pixels or is not a number has an empty mask.
        size: height and width of the image in pixels.
        threshold: least probability of a mask's pixel, not negative.

    Returns:
        R compressed RLEs, ``{"size": [height, width], "counts": bytes}``.

    Raises:
        ValueError: if masks and boxes are not of these shapes, the threshold is negative, or the image has 2**32 pixels.
    """
    if masks.ndim != 3 or boxes.shape != (len(masks), 4):
        raise ValueError(f"masks must be (R, M, M) and boxes (R, 4): {tuple(masks.shape)}, {tuple(boxes.shape)}")
    if not threshold >= 0:
        raise ValueError(f"threshold must not be negative: {threshold}")
    if size[0] * size[1] >= 2**32:  # pycocotools' runs are 32 bits long, and would be cut to them in silence
        raise ValueError(f"an RLE cannot hold an image of {size[0]} x {size[1]} pixels: paste into tiles of it")
    masks = masks.detach().to("cpu", masks.dtype if masks.is_floating_point() else torch.float32)
    boxes = boxes.detach().to("cpu", torch.float32)
    return [encode_outline(_outline(mask, box, size, threshold), size) for mask, box in zip(masks, boxes, strict=True)]


def rle_to_dense(rles: Sequence[dict[str, Any]], size: tuple[int, int]) -> Tensor:
    """Decodes R RLEs of one image.

    Args:
        rles: compressed.
        size: height and width of the image in pixels.

    Returns:
        (R, height, width) bool.

    Raises:
        ValueError: if an RLE is of another size.
    """
    dense = torch.empty((len(rles), *size), dtype=torch.bool)
    for mask, rle in zip(dense, rles, strict=True):
        if tuple(rle["size"]) != tuple(size):
            raise ValueError(f"an RLE of {tuple(rle['size'])} pixels is not of an image of {tuple(size)}")
        mask.copy_(torch.from_numpy(mask_util.decode(rle)))
    return dense


def _outline(mask: Tensor, box: Tensor, size: tuple[int, int], threshold: float) -> NDArray[np.int64]:
    """Where the runs of one pasted mask start and end, in turn, as column-major positions in the image.

    A run ends with its column, so that one may start where the last ended.
    """
    height, width = size
    left, top = (box[:2].floor() - 1).clamp(min=0).tolist()
    right, bottom = torch.minimum(box[2:].ceil() + 1, box.new_tensor([width, height])).tolist()
    if not (left < right and top < bottom):
        return np.empty(0, np.int64)
    x, y = _sample_positions(box[0], box[2], left, right), _sample_positions(box[1], box[3], top, bottom)

    rows, outlines, start = len(y), [], int(left)
    for strip in x.split(max(1, _STRIP_PIXELS // rows)):
        # Columns first: the samples lie in the order of an RLE.
        grid = torch.stack(torch.broadcast_tensors(strip[:, None], y), dim=2).to(mask.dtype)
        samples = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
        # A pixel of background before the first column and behind every column closes the runs.
        pixels = torch.zeros(1 + len(strip) * (rows + 1), dtype=torch.bool)
        torch.ge(samples, threshold, out=pixels[1:].view(len(strip), rows + 1)[:, :rows])
        changes = np.flatnonzero(np.diff(pixels.numpy()))
        columns, offsets = np.divmod(changes, rows + 1)
        outlines.append((start + columns) * height + int(top) + offsets)
        start += len(strip)
    return np.concatenate(outlines)


def _sample_positions(low: Tensor, high: Tensor, first: float, end: float) -> Tensor:
    """Where the pixels from ``first`` to ``end`` lie in a box's mask, -1 to 1 from edge to edge; rounded as Detectron2 does."""
    centres = torch.arange(first, end, dtype=torch.float32) + 0.5
    return (centres - low) / (high - low) * 2 - 1


def encode_outline(outline: NDArray[np.int64], size: tuple[int, int]) -> dict[str, Any]:
    """Turns an outline into a compressed RLE."""
    height, width = size
    if len(outline):
        gaps = outline[1:-1].reshape(-1, 2)
        gaps = gaps[gaps[:, 0] < gaps[:, 1]]
        outline = np.concatenate([outline[:1], gaps.ravel(), outline[-1:]])
    counts = np.diff(outline, prepend=0, append=height * width)
    if len(outline) and counts[-1] == 0:
        counts = counts[:-1]
    encoded: dict[str, Any] = mask_util.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    return encoded
