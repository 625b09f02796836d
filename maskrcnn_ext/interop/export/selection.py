"""Which boxes stay: Detectron2's rules for the RoIs of one image or of several at once, on tensors alone."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor

# Height and width, numbers or what a tracer has for them.
Size = Any


def clip(boxes: Tensor, window: tuple[Any, Any, Any, Any], pixel: int = 0) -> Tensor:
    """Cuts (..., 4) off at the borders of a window, x0, y0, x1, y1; a box keeps `pixel` of its length."""
    sides = []
    for axis in (0, 1):
        low, high = window[axis], window[axis + 2]
        sides.append(boxes[..., axis].clamp(min=low).clamp(max=high - pixel))
        sides.append(boxes[..., axis + 2].clamp(min=low + pixel).clamp(max=high))
    return torch.stack([sides[0], sides[2], sides[1], sides[3]], dim=-1)


def whole(size: Size) -> tuple[Any, Any, Any, Any]:
    """The window that an image of a size is."""
    return (0, 0, size[1], size[0])


def apart(boxes: Tensor, groups: Tensor, size: Size) -> Tensor:
    """Moves groups of boxes apart, so that none overlaps with one of another group.

    They come on a square grid, not in a row: the farther from the origin, the less exact is a float32.

    Args:
        boxes: (M, 4) within an image of `size`.
        groups: (M,) from 0, as float or int.
        size: height and width.
    """
    groups = groups.to(boxes.dtype)
    # Group 0 is at the corner, 1 to 3 around it, 4 to 8 around these, without knowing how many there are.
    ring = (groups + 0.5).sqrt().floor()
    rest = groups - ring * ring
    x = torch.minimum(ring, 2 * ring - rest) * size[1]
    y = torch.minimum(ring, rest) * size[0]
    return boxes + torch.stack([x, y, x, y], dim=1)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes (M, 4), none of them left of or above the image, that no better one covers, by descending score."""
    if not torch.compiler.is_compiling():
        return torchvision.ops.nms(boxes, scores, threshold)
    # Torchvision tells torch.export that two boxes stay at least: here are two more that do.
    more = boxes.new_tensor([[-2, -2, -1, -1], [-4, -4, -3, -3]])
    lowest = scores.new_full((2,), -torch.inf)
    keep = torchvision.ops.nms(torch.cat([boxes, more]), torch.cat([scores, lowest]), threshold)
    return keep[keep < boxes.shape[0]]


def first_of_each(images: Tensor, limit: int, count: Any) -> Tensor:
    """Of a list (M,) of images' numbers, the places of each image's first `limit`, image by image.

    Args:
        images: from 0, as float or int.
        limit: how many of an image; all for one below 0.
        count: how many images there are.
    """
    images = images.long()
    if limit < 0:
        limit = images.shape[0]
    own = (images[:, None] == torch.arange(count, device=images.device)).long()
    rank = (own.cumsum(0) * own).sum(1) - 1
    kept = (rank < limit).nonzero()[:, 0]
    return kept[(images[kept] * limit + rank[kept]).argsort()]


def select(
    rois: Tensor, boxes: Tensor, probs: Tensor, predictor: Any, size: Size, count: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Detectron2's ``fast_rcnn_inference``.

    Args:
        rois: (R, 5), of which the first is the image's number.
        boxes: (R, 4 * K) or (R, 4).
        probs: (R, K + 1), background last.
        predictor: a FastRCNNOutputLayers, which has the thresholds.
        size: of the images.
        count: of the images.

    Returns:
        RoIs (D, 5), scores (D,) and classes (D,) of D detections, image by image, by descending score.
    """
    finite = (boxes * 0 == 0).all(dim=1) & (probs * 0 == 0).all(dim=1)
    chosen = (probs[:, :-1] > predictor.test_score_thresh) & finite[:, None]
    row, classes = chosen.nonzero().unbind(1)
    scores = probs[row, classes]
    boxes = clip(boxes.reshape(-1, int(boxes.shape[1]) // 4, 4), whole(size))
    boxes = boxes[row, classes] if boxes.shape[1] > 1 else boxes[row, 0]
    images = rois[row, 0]
    # Neither images nor classes suppress each other.
    groups = images * (probs.shape[1] - 1) + classes
    keep = nms(apart(boxes, groups, size), scores, predictor.test_nms_thresh)
    keep = keep[first_of_each(images[keep], predictor.test_topk_per_image, count)]
    return torch.cat([images[keep, None], boxes[keep]], dim=1), scores[keep], classes[keep]


def own_channel(logits: Tensor, classes: Tensor) -> Tensor:
    """Of (R, K, ...) or (R, 1, ...) the channel of every RoI's class: (R, ...)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(logits.shape[0], device=logits.device), classes]
